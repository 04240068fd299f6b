"""Every likelihood surrogate against the exact law of each sampler's order rule: `python -m studies.exact`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies.exact.report import Settings, write_microscope

MAX_COMPLETIONS = 5000


def exact(
    length: Annotated[int, typer.Option(min=2, max=8, help="Columns of the canvas.")] = 6,
    letters: Annotated[int, typer.Option(min=2, max=5, help="Letters that a column may hold.")] = 3,
    policies: Annotated[int, typer.Option(min=1, help="Policies to average over.")] = 2,
    draws: Annotated[int, typer.Option(min=2, help="Draws of every random surrogate.")] = 32,
    out: Annotated[Path, typer.Option(help="Folder of microscope.md and images/microscope.png.")] = Path("runs/exact"),
) -> None:
    """Compare every likelihood surrogate with the exact law of each sampler's order rule, by enumeration."""
    if letters**length > MAX_COMPLETIONS:
        raise typer.BadParameter(
            f"{letters} letters in {length} columns are {letters**length} completions; take fewer than 5000"
        )
    quotas = tuple(quota for quota in (1, 2) if length % quota == 0)
    settings = Settings(length=length, num_letters=letters, num_policies=policies, num_draws=draws, quotas=quotas)
    print(f"wrote {write_microscope(settings, out)}")


if __name__ == "__main__":
    typer.run(exact)
