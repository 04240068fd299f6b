"""A grid whose cells train in several processes, under `accelerate launch`: the first leads, the others follow.

The first process does what a single one does: it claims units, shows progress and writes files. Before each unit it
tells the others, and all train and evaluate it together. Where one fails, all end: the unit is owed, and the same
command goes on.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from accelerate import PartialState

from dllm_rl.training.ranks import ALONE, Ranks
from experiments.design.units import GridPlan, Unit
from experiments.run.failures import ProcessesBrokenError
from experiments.run.runner import Executor, OnEvent

# How long a process waits for the others: as long as any self-check, since that one runs in the first alone.
WAIT = timedelta(hours=12)


def launched_ranks() -> Ranks:
    """The processes that a launcher started together with this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ALONE
    return Ranks.of(PartialState(cpu=True, timeout=WAIT))


class Leader:
    """Executor of the first process: has the others work on the same unit."""

    def __init__(self, work: Executor, ranks: Ranks) -> None:
        self._work, self._ranks = work, ranks

    def warm_start(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Evaluate a policy as it was before training, each process its share of the rollouts."""
        return self._together("warm_start", unit, on_event)

    def cell(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Train and evaluate a cell, each process its share of the rollouts."""
        return self._together("cell", unit, on_event)

    def _together(self, what: str, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        self._ranks.from_first((what, unit.name))
        try:
            return getattr(self._work, what)(unit, on_event)
        except Exception as error:
            # The others wait in the middle of an exchange, from which there is no way back.
            raise ProcessesBrokenError(f"{unit.name}: {type(error).__name__}: {error}") from error

    def release(self) -> None:
        """Let the others end."""
        self._ranks.from_first(None)


def follow(plan: GridPlan, work: Executor, ranks: Ranks) -> None:
    """Work on each unit that the first process names, until it releases this one."""
    units = {unit.name: unit for unit in plan.units}
    while True:
        order: Any = ranks.from_first(None)
        if order is None:
            return
        what, name = order
        getattr(work, what)(units[name], lambda event: None)
