"""Units of one grid that other versions made: their numbers may differ by more than their settings."""

from __future__ import annotations

from typing import Any

from experiments.report.load import Run

_NAMED = 3


def mixed_versions(run: Run) -> dict[str, Any] | None:
    """What differs between the finished units, most frequent version first; None where all are equal.

    A unit that does not say (of an older toolkit, or without a browser) counts for nothing.
    """
    made = {unit.name: unit.versions for unit in run.units}
    packages = dict.fromkeys(package for versions in made.values() for package in versions)
    differing = [(package, units) for package in packages if len(units := _by_version(made, package)) > 1]
    if not differing:
        return None
    told = "; ".join(f"{package} {_told(units)}" for package, units in differing)
    return {
        "sentence": f"Units of this grid were made by different versions, so they are not strictly comparable: {told}.",
        "packages": [
            {
                "package": package,
                "versions": [
                    {"version": version, "num_units": len(names), "units": names} for version, names in units.items()
                ],
            }
            for package, units in differing
        ],
    }


def _by_version(made: dict[str, dict[str, str]], package: str) -> dict[str, list[str]]:
    units: dict[str, list[str]] = {}
    for name, versions in made.items():
        if package in versions:
            units.setdefault(versions[package], []).append(name)
    return dict(sorted(units.items(), key=lambda item: (-len(item[1]), item[0])))


def _told(units: dict[str, list[str]]) -> str:
    """Each version with its number of units; but for the most frequent, with their names."""
    parts = []
    for index, (version, names) in enumerate(units.items()):
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        listed = f" ({', '.join(names[:_NAMED])}{more})" if index else ""
        parts.append(f"{version} in {len(names)} unit{'' if len(names) == 1 else 's'}{listed}")
    return ", ".join(parts)
