"""`dllm-rl watch RUN`: a running or finished grid in the terminal, read from its files alone.

Nothing is written, and nothing is locked for longer than a look: any number of terminals may watch, on any machine that
sees the folder.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.run.folder import RunFolder, UnitFolder
from experiments.run.progress import duration
from experiments.run.status import LABELS, Status

_RECENT = 5
_STYLES = {"done": "green", "stopped": "yellow", "running": "cyan", "failed": "bold red", "owed": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitView:
    """A unit as it stands: one seed of a cell, or a policy's warm start (seed None).

    Attributes:
        success: Mean of its last training steps.
        alarms: Messages, newest last.
    """

    cell: str
    policy: str
    seed: int | None
    status: Status
    num_steps: int
    total_steps: int
    success: float | None
    seconds_trained: float
    alarms: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        """No more work of this launch goes into it."""
        return self.status.state in ("done", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class GridView:
    """A run folder at one moment."""

    preset: str
    units: tuple[UnitView, ...]

    @property
    def is_over(self) -> bool:
        """Every cell is done or failed."""
        return all(view.is_over for view in self.units)

    @property
    def num_running(self) -> int:
        """Units that a process works on now."""
        return sum(view.status.state == "running" for view in self.units)

    def seconds_left(self) -> float | None:
        """Wall time left at the pace so far, shared by the processes at work; None before there is a pace."""
        left = [self._left(view) for view in self.units if not view.is_over]
        if any(item is None for item in left):
            return None
        return sum(item for item in left if item is not None) / max(1, self.num_running)

    def _left(self, view: UnitView) -> float | None:
        # The evaluation of a warm start says nothing about the time of a training, nor the other way round.
        alike_in_kind = [other for other in self.units if (other.seed is None) == (view.seed is None)]
        done = [other for other in alike_in_kind if other.status.state == "done"]
        alike = [other.status.seconds for other in done if other.policy == view.policy]
        usual = alike or [other.status.seconds for other in done]
        if usual:
            return max(0.0, fmean(usual) - view.seconds_trained)
        paces = [other.seconds_trained / other.num_steps for other in self.units if other.num_steps]
        return fmean(paces) * (view.total_steps - view.num_steps) if paces else None


def look(root: Path) -> GridView:
    """Read a run folder."""
    run = RunFolder(root)
    return GridView(preset=run.config.preset, units=tuple(_view(unit, run.config.num_steps) for unit in run.units()))


def _view(unit: UnitFolder, usual_steps: int) -> UnitView:
    rows, record = unit.metrics(), unit.record()
    recent = [row["success"] for row in rows[-_RECENT:] if row.get("success") is not None]
    steps = int(record.train.get("steps", usual_steps)) if record is not None else usual_steps
    return UnitView(
        cell=unit.key.name if unit.cell is None else unit.cell.id,
        policy=unit.key.policy,
        seed=unit.key.seed,
        status=unit.status,
        num_steps=len(rows),
        total_steps=0 if unit.key.is_warm_start else steps,
        success=fmean(recent) if recent else None,
        seconds_trained=sum(value or 0 for row in rows for name, value in row.items() if name.startswith("seconds/")),
        alarms=tuple(alarm.message for alarm in unit.alarms().alarms),
    )


def show(view: GridView) -> Group:
    """What the terminal shows: one line a cell with a mark for each seed, then alarms, failures and the time left."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("cell", "seeds", "steps", "success %", "alarms"):
        table.add_column(name, justify="left" if name in ("cell", "seeds") else "right", overflow="fold")
    for cell in dict.fromkeys(unit.cell for unit in view.units):
        table.add_row(*_row(cell, [unit for unit in view.units if unit.cell == cell]))
    return Group(table, *_notes(view))


def _row(cell: str, units: Sequence[UnitView]) -> list[Text | str]:
    marks = Text(" ").join(Text(unit.status.label, style=_STYLES[unit.status.label]) for unit in units)
    found = [unit.success for unit in units if unit.success is not None]
    alarms = sum(len(unit.alarms) for unit in units)
    steps = f"{sum(unit.num_steps for unit in units)}/{sum(unit.total_steps for unit in units)}"
    steps = "-" if units[0].seed is None else steps
    return [cell, marks, steps, f"{100 * fmean(found):.0f}" if found else "-", str(alarms or "-")]


def _notes(view: GridView) -> list[Text]:
    lines = []
    for unit in view.units:
        name = unit.cell if unit.seed is None else f"{unit.cell} seed {unit.seed}"
        if unit.status.label in ("failed", "stopped"):
            lines.append(Text(f"{unit.status.label}: {name}: {unit.status.cause}", style=_STYLES[unit.status.label]))
        elif unit.alarms:
            lines.append(Text(f"alarm: {name}: {unit.alarms[-1]}", style="yellow"))
    labels = [unit.status.label for unit in view.units]
    counts = ", ".join(f"{labels.count(state)} {state}" for state in LABELS if state in labels)
    return [*lines, Text(f"{view.preset}: {counts}; {_ahead(view)}")]


def _ahead(view: GridView) -> str:
    if view.is_over:
        return "finished"
    left = view.seconds_left()
    about = "no pace yet" if left is None else f"about {duration(left)} left"
    if not view.num_running:
        return f"{about}, but no process works on it: the command that started it continues it"
    return f"{about} with {view.num_running} at work"


def watch(run: Path, *, interval: float, is_once: bool) -> int:
    """Show a run until it is over, or once: if asked, and if the output is not a terminal. Ctrl-C ends it."""
    root = RunFolder.find(run).root
    console = Console()
    if is_once or not console.is_terminal:
        console.print(show(look(root)))
        return 0
    try:
        with Live(console=console, auto_refresh=False) as live:
            view = look(root)
            live.update(show(view), refresh=True)
            while not view.is_over:
                time.sleep(interval)
                view = look(root)
                live.update(show(view), refresh=True)
    except KeyboardInterrupt:
        return 0
    return 0
