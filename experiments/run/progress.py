"""Progress of a grid with a time estimate: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from experiments.run.status import Status

if TYPE_CHECKING:
    from experiments.design.units import Unit


class Clock:
    """Time left: the estimated cost of what is owed, scaled by how this machine did so far.

    Args:
        num_workers: Processes that share the work.
    """

    def __init__(self, owed: Sequence[Unit], num_workers: int = 1) -> None:
        self._num_workers = num_workers
        self.num_units = len(owed)
        self.num_finished = 0
        self._started = time.monotonic()
        self._left = {unit.name: unit.cost.seconds for unit in owed}
        self._spent_as_planned = 0.0

    def is_owed(self, unit: Unit) -> bool:
        """Whether the unit was owed at the start and has not ended yet."""
        return unit.name in self._left

    def finish(self, unit: Unit) -> None:
        """A unit ended."""
        planned = self._left.pop(unit.name, None)
        if planned is not None:
            self.num_finished += 1
            self._spent_as_planned += planned

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def seconds_left(self, shares: Mapping[str, float] | None = None) -> float:
        """Estimate of the seconds left.

        Args:
            shares: How much of each unit under way, by name, is behind us.
        """
        under_way = sum(self._left.get(name, 0.0) * share for name, share in (shares or {}).items())
        behind = self._spent_as_planned + under_way
        ahead = sum(self._left.values()) - under_way
        # One minute of plan is weighed in, so that the first seconds do not decide the estimate.
        pace = (self.elapsed + 60.0 / self._num_workers) / (behind + 60.0)
        return ahead * pace


def duration(seconds: float) -> str:
    """Seconds as people write them: 45 s, 3 min, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:02.0f} min"


class ConsoleProgress:
    """Prints one line per unit, and between them what is under way (rewritten in place on a terminal).

    Args:
        num_workers: How many units run at a time.
    """

    def __init__(self, owed: Sequence[Unit], console: Console | None = None, *, num_workers: int = 1) -> None:
        self.clock = Clock(owed, num_workers)
        self.console = console or Console()
        self._last_note = 0.0
        self._live: Any = None
        self._notes: dict[str, str] = {}
        self._shares: dict[str, float] = {}

    def __enter__(self) -> ConsoleProgress:
        if self.console.is_terminal:
            self._live = self.console.status("starting")
            self._live.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        if self._live is not None:
            self._live.__exit__(*details)

    def start(self, unit: Unit) -> None:
        """A unit begins."""
        self._note(unit, "starting", 0.0)

    def event(self, unit: Unit, event: dict[str, Any]) -> None:
        """A training step (`step`, from 0) or a part of the evaluation (`evaluated` rollouts `of` all)."""
        training = unit.cost.train_rollouts / max(1, unit.cost.train_rollouts + unit.cost.evaluation_rollouts)
        if "step" in event:
            done, steps = event["step"] + 1, max(1, unit.cell.train["steps"])
            reward = event.get("reward")
            shown = "" if reward is None else f", reward {reward:.2f}"
            self._note(unit, f"step {done}/{steps}{shown}", training * done / steps)
        else:
            done, total = event["evaluated"], max(1, event["of"])
            self._note(unit, f"evaluation {done}/{total}", training + (1 - training) * done / total)

    def finish(self, unit: Unit, status: Status) -> None:
        """A unit ended, or was found ended."""
        is_new = self.clock.is_owed(unit)
        self.clock.finish(unit)
        self._notes.pop(unit.name, None)
        self._shares.pop(unit.name, None)
        if is_new or status.state != "done":
            number = f"[{self.clock.num_finished}/{self.clock.num_units}]"
            ending = {
                "done": f"done in {duration(status.seconds)}",
                "stopped": f"stopped at step {status.stopped_at} and evaluated: {status.cause}",
                "failed": f"FAILED: {status.cause}",
            }
            text = ending.get(status.label, status.cause or status.state)
            self._line(f"{number} {unit.name}: {text} · {self._left()}")

    def tell(self, text: str) -> None:
        """Something happened beside the units."""
        self._line(text)

    def _left(self) -> str:
        left = self.clock.seconds_left(self._shares)
        return f"{duration(self.clock.elapsed)} so far, about {duration(left)} left"

    def _note(self, unit: Unit, text: str, share: float) -> None:
        self._notes[unit.name], self._shares[unit.name] = text, share
        number = f"[{min(self.clock.num_finished + 1, self.clock.num_units)}/{self.clock.num_units}]"
        under_way = " · ".join(f"{name}: {note}" for name, note in self._notes.items())
        line = f"{number} {under_way} · {self._left()}"
        if self._live is not None:
            self._live.update(Text(line))
        elif text == "starting" or time.monotonic() - self._last_note > 15:
            self._last_note = time.monotonic()
            self._line(line)

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
