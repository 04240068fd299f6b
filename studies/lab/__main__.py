"""Which objectives of a run learn, which collapse, and which do neither: `python -m studies.lab RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.run.folder import RunFolder
from studies.lab.table import write_table


def lab(run: Annotated[Path, typer.Argument(help="Run folder, or the name of a preset.")]) -> None:
    """Print the table and write it to lab.md beside the report."""
    print(write_table(RunFolder.find(run)), end="")


if __name__ == "__main__":
    typer.run(lab)
