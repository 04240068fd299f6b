"""What the command `status` does: it reads status files, and loads neither harness nor PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from experiments.run.folder import RunFolder, UnitFolder
from experiments.run.status import LABELS


def show_status(run: Path, *, as_json: bool) -> int:
    """Print the state of every cell and seed of a run."""
    rows = [_state(unit) for unit in RunFolder.find(run).units()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table(Column("cell", no_wrap=True), "seed", "state", "seconds", Column("cause", overflow="fold"))
    for row in rows:
        seed = "" if row["seed"] is None else str(row["seed"])
        table.add_row(row["cell"], seed, row["state"], f"{row['seconds']:.0f}", escape(row["cause"]))
    console = Console()
    console.print(table)
    counts = {state: sum(row["state"] == state for row in rows) for state in LABELS}
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count), highlight=False)
    return 0


def _state(unit: UnitFolder) -> dict[str, Any]:
    status = unit.status
    return {
        "cell": unit.key.name if unit.cell is None else unit.cell.id,
        "role": "warm start" if unit.cell is None else unit.cell.role,
        "seed": unit.key.seed,
        "state": status.label,
        "cause": status.cause,
        "stopped_at": status.stopped_at,
        "seconds": status.seconds,
    }
