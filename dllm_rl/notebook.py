"""The notebook: what a policy reads at each turn of an episode.

The task, what it did and what came of it, and the present page. Earlier pages are forgotten, so that prompts stay short
however long an episode is; what a page showed and will be needed later, the policy keeps with `note`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Turn
from dllm_rl.records.tasks import ActionResult, Observation, Task, render_page, render_prompt

Memory = Literal["none", "feedback", "actions", "full"]
_NOTE = "note "


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """What is kept of earlier turns.

    Attributes:
        memory: Of all earlier turns: nothing, what was answered to each action, the actions, or both.
        feedback: Whether the last turn's answers are shown, whatever `memory` says.
        num_observations: Number of pages that are shown, the present one included.
    """

    memory: Memory = "full"
    feedback: bool = True
    num_observations: int = 1

    def __post_init__(self) -> None:
        if self.num_observations < 1:
            raise ConfigError(f"num_observations is {self.num_observations}; expected 1 for the present page, or more.")
        if not self.feedback and self.memory in ("feedback", "full"):
            raise ConfigError(f"memory is {self.memory}, which keeps feedback; given feedback=false. Take actions.")

    def prompt(
        self,
        task: Task,
        turns: Sequence[Turn],
        observation: Observation,
        fits: Callable[[str], bool] = lambda text: True,
    ) -> str:
        """Write the prompt of the next turn.

        Where it does not fit, earlier pages are left out first, then the oldest lines about earlier turns, and notes
        last. The present page is never cut. At the first turn it is `render_prompt`.
        """
        if not turns:
            return render_prompt(task, observation)
        lines = [line for turn in turns[:-1] for line in self._lines(turn, shows_feedback=self._keeps_feedback)]
        lines += self._lines(turns[-1], shows_feedback=self.feedback)
        earlier = (
            [turn.observation for turn in turns[-(self.num_observations - 1) :]] if self.num_observations > 1 else []
        )
        head = f"task: {task.instruction or observation.instruction}"
        while earlier and not fits(_joined(head, lines, earlier, observation)):
            del earlier[0]
        while lines and not fits(_joined(head, lines, earlier, observation)):
            lines.remove(next((line for line in lines if not line.startswith(_NOTE)), lines[0]))
        return _joined(head, lines, earlier, observation)

    @property
    def _keeps_feedback(self) -> bool:
        return self.memory in ("feedback", "full")

    def _lines(self, turn: Turn, *, shows_feedback: bool) -> list[str]:
        shows_actions = self.memory in ("actions", "full")
        return [
            line
            for action in turn.outcome.actions
            if (line := _line(action, shows_action=shows_actions, shows_feedback=shows_feedback))
        ]


def _joined(head: str, lines: Sequence[str], earlier: Sequence[Observation], now: Observation) -> str:
    pages = [line for page in earlier for line in ("earlier:", *render_page(page))]
    return "\n".join([head, *lines, *pages, *(["now:"] if pages else []), *render_page(now), "plan:\n"])


def _line(action: ActionResult, *, shows_action: bool, shows_feedback: bool) -> str:
    """One action with what was answered; "" where nothing of it is shown. What was skipped was not done."""
    if action.status == "skipped":
        return ""
    if action.status == "ok" and action.text.startswith(_NOTE):
        return action.text if shows_action else ""
    answer = _brief(action) if shows_feedback else ""
    if shows_action:
        return f"did {action.text} -> {answer}" if answer else f"did {action.text}"
    return f"-> {answer}" if answer else ""


def _brief(action: ActionResult) -> str:
    """The feedback without what the action says already."""
    usual = f"ok {' '.join(action.text.split(' ')[:2])}"
    return "ok" + action.note.removeprefix(usual) if action.note.startswith(usual) else action.note
