"""Filter and order of the report, which the page's style sheet does alone: without a script.

Whatever shows one cell carries the numbers of its policy and objective, and the style sheet hides what is not chosen.
A row of the verdict table carries its rank by every column that the table can be ordered by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from experiments.report.tables import GLYPHS

# Columns that order the verdict table, with what decides a cell's rank; a cell without the number comes last.
_ORDERS = {
    "verdict": lambda cell: list(GLYPHS).index(cell["verdict"]),
    "success": lambda cell: _descending(cell["after"]["success"]),
    "change": lambda cell: _descending(None if cell["verdict"] == "owed" else cell["effect"]),
    "p": lambda cell: cell["p_adjusted"],
    "visible": lambda cell: cell["detectable"],
}
ORDERS = tuple(_ORDERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Policies and objectives that a reader can choose."""

    policies: tuple[str, ...]
    objectives: tuple[str, ...]

    def kinds(self) -> list[tuple[str, tuple[str, ...]]]:
        """What there is to choose: kinds of levels of which there are several."""
        kinds = [("policy", self.policies), ("objective", self.objectives)]
        return [(kind, names) for kind, names in kinds if len(names) > 1]

    def of(self, cell: dict[str, Any]) -> Markup:
        """Attributes of an element that shows this cell. A control's own objective is none of the levels."""
        return self.policy(cell["policy"]) + self.objective(cell["objective"])

    def policy(self, name: str) -> Markup:
        """Attribute of an element that shows this policy alone."""
        return _attribute("policy", name, self.policies)

    def objective(self, name: str) -> Markup:
        """Attribute of an element that shows this objective alone."""
        return _attribute("objective", name, self.objectives)


def ranks_of(cells: list[dict[str, Any]]) -> list[Markup]:
    """For each cell its rank by every order, as properties of style; cells of equal rank keep their place."""
    ranks: list[list[str]] = [[] for _ in cells]
    for name, number_of in _ORDERS.items():
        numbers = [number_of(cell) for cell in cells]
        known = sorted({number for number in numbers if number is not None})
        for parts, number in zip(ranks, numbers, strict=True):
            parts.append(f"--by-{name}: {len(known) if number is None else known.index(number)}")
    return [Markup("; ".join(parts)) for parts in ranks]


def _attribute(kind: str, name: str, names: tuple[str, ...]) -> Markup:
    return Markup(f' data-{kind}="{names.index(name) if name in names else "none"}"')


def _descending(number: float | None) -> float | None:
    return None if number is None else -number
