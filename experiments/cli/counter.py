"""How far a measurement is: a bar on a terminal, a line now and then elsewhere, both on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from experiments.run.progress import duration

# Gets (how many are done, how many there are in all).
Count = Callable[[int, int], None]
_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def counter(what: str, console: Console | None = None) -> Iterator[Count]:
    """Show a count with an estimate of the time left, until the context ends.

    Args:
        what: What is counted, as people read it: "val, rollouts".
        console: Default: standard error, so that what programs read stays clean.
    """
    shown = console or Console(stderr=True)
    if not shown.is_terminal:
        yield _lines(what, shown)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=shown, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _lines(what: str, console: Console) -> Count:
    """A line whenever some seconds have passed since the last one, and none at the end."""
    started = last = time.monotonic()

    def count(done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES or done >= of:
            return
        last = now
        left = "" if done == 0 else f", about {duration((now - started) * (of - done) / done)} left"
        console.print(f"{what}: {done}/{of}{left}", markup=False, highlight=False, soft_wrap=True)

    return count
