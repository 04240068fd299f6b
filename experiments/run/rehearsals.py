"""Demonstrations of episodes: what an oracle with detours does on errands, one prompt and one turn each.

Detours show how to make good what went wrong. The turns that went wrong on purpose are in the notebook of later ones
and are not imitated. Of several attempts at a task the shortest is kept (2606.02031); all of them succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from dllm_rl.seeding import python_random
from experiments.design.base import Strict
from experiments.design.turns import NotebookSettings
from experiments.run.role_demonstrations import RoleDemonstrations, collected, role_demonstrations
from harness.errands import DIFFICULTIES, Rehearsal, check_errands, fits, make_errand, make_tasks, rehearse

if TYPE_CHECKING:
    from dllm_rl.records.tasks import Task
    from dllm_rl.training.warmstart import Demonstration


_TRIED = 20


class ErrandDemonstrations(Strict):
    """Errands whose turns are imitated.

    Attributes:
        kinds: Kinds of errands; None for all of which some fit into a window. Errands that do not fit are left out.
        difficulties: Their difficulties.
        detours: Share of turns at which the oracle slips, of those where it can.
        attempts: Attempts at each task, of which the shortest is kept.
        max_actions: Actions of one turn.
        notebook: What the prompts keep of earlier turns.
        roles: Roles whose words are shown, instead of turns that are written at once.
    """

    kinds: tuple[str, ...] | None = None
    difficulties: tuple[int, ...] = DIFFICULTIES
    detours: float = Field(default=0.2, ge=0, le=1)
    attempts: int = Field(default=1, ge=1)
    max_actions: int = Field(default=8, ge=1)
    notebook: NotebookSettings = NotebookSettings()
    roles: RoleDemonstrations | None = None

    @model_validator(mode="after")
    def _can_be_rehearsed(self) -> ErrandDemonstrations:
        try:
            check_errands(self.kinds, self.difficulties)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if long := [kind for kind in self.kinds or () if not _some_fit(kind, self.difficulties)]:
            raise ValueError(
                f"kinds names {', '.join(long)}, whose pages are longer than a window, so that they cannot be "
                "rehearsed. Leave it out."
            )
        return self


def _some_fit(kind: str, difficulties: Sequence[int]) -> bool:
    """Whether any of a kind's first errands fits into a window."""
    keys = (f"errand.{kind}.d{difficulty}.s{seed}" for difficulty in difficulties for seed in range(_TRIED))
    return any(fits(make_errand(key)) for key in keys)


def errand_demonstrations(
    settings: ErrandDemonstrations, *, count: int, seed: int, fits_prompt: Callable[[str], bool]
) -> list[Demonstration]:
    """Make `count` demonstrations.

    Args:
        fits_prompt: Whether a prompt is short enough; notebooks are cut until it is.
    """
    tasks = make_tasks("train", count, seed=seed, kinds=settings.kinds, difficulties=settings.difficulties)
    notebook = settings.notebook.build()
    shown: list[tuple[str, Demonstration]] = []
    for index, task in enumerate(tasks):
        if fits(make_errand(task.site)):
            best = _shortest(task, index, settings, seed)
            if settings.roles is None:
                shown += [("turns", item) for item in _turns(task, best, notebook, fits_prompt)]
            else:
                shown += role_demonstrations(task, best, settings.roles, notebook, fits_prompt)
        if len(shown) >= count:
            break
    if settings.roles is not None:
        return settings.roles.mixed(collected(shown), count)
    return [item for _, item in shown[:count]]


def _shortest(task: Task, index: int, settings: ErrandDemonstrations, seed: int) -> Rehearsal:
    """The shortest of the attempts at a task."""
    attempts = [
        rehearse(
            task,
            max_actions=settings.max_actions,
            chance=python_random(seed, "rehearsal", index, attempt),
            detours=settings.detours,
        )
        for attempt in range(settings.attempts)
    ]
    return min(attempts, key=lambda item: len(item.turns))


def _turns(task: Task, best: Rehearsal, notebook: Notebook, fits_prompt: Callable[[str], bool]) -> list[Demonstration]:
    from dllm_rl.training.warmstart import Demonstration

    return [
        Demonstration(
            prompt=notebook.prompt(task, best.turns[:at], turn.observation, fits_prompt), plan=turn.completion.plan
        )
        for at, turn in enumerate(best.turns)
        if at not in best.slips
    ]
