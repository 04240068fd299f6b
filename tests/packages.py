"""Packages of third parties for tests: what an installation leaves beside their modules."""

from __future__ import annotations

import tomllib
from pathlib import Path


def write_metadata(pyproject: Path, folder: Path) -> None:
    """Write the `.dist-info` with the entry points that a `pyproject.toml` announces."""
    project = tomllib.loads(pyproject.read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        f"[{group}]\n" + "\n".join(f"{name} = {target}" for name, target in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
