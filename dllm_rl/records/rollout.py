"""One rollout as a record, free of torch: the task, what was seen, written and done turn by turn, and what it earned.

Training, evaluation, snapshots, films and replay make and read this record, and `Rollout.to_row` is its one spelling in
`rollouts.jsonl`, `results.parquet` and everything that is compared with them. A whole plan is an episode of one turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dllm_rl import html
from dllm_rl.records.tasks import Observation, Outcome, RewardRecord, Task

if TYPE_CHECKING:
    from dllm_rl.records.types import SampledRow

RewardFunction = Callable[[Outcome], RewardRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What was written at one turn, and how.

    plan: text of what was written.
    prompt: text that the policy read; "" where no policy wrote the plan (a gold plan, a recorded one).
    num_tokens: length of what was written, EOS included, FILL and PAD not. A grammar has no influence on it: tokens
        that it forced count like all others.
    sampled: the sampler's record of it, token ids included; None where no policy wrote it.
    """

    plan: str
    prompt: str = ""
    num_tokens: int = 0
    sampled: SampledRow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange with the environment.

    observation: what the policy could see.
    completion: what it wrote.
    outcome: what has come of the episode by its end; its `actions` are those of this turn, and so the feedback that the
        next turn builds on.
    """

    observation: Observation
    completion: Completion
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One episode.

    outcome: of the whole episode, by which it is judged.
    reward: of the whole episode; it counts only where the outcome is valid.
    """

    task: Task
    turns: tuple[Turn, ...]
    outcome: Outcome
    reward: RewardRecord

    @property
    def plan(self) -> str:
        """All that was written: a whole plan as it is, the turns of an episode as `join_turns` writes them."""
        plans = [turn.completion.plan for turn in self.turns]
        return "\n".join(plans) if self.outcome.ending is None else join_turns(plans)

    @property
    def num_tokens(self) -> int:
        """Length of all that was written."""
        return sum(turn.completion.num_tokens for turn in self.turns)

    def to_row(self, **labels: Any) -> dict[str, Any]:
        """The rollout as a row of plain values, the same wherever it is written. labels: further columns."""
        outcome, reward = self.outcome, self.reward
        return {
            **labels,
            "split": self.task.split,
            "task_id": self.task.id,
            "reward": float(reward.value),
            "success": outcome.is_success,
            "submitted": outcome.is_submitted,
            "field_accuracy": float(reward.field_accuracy),
            "progress": float(reward.progress),
            "near_miss": outcome.is_near_miss,
            "parsed": outcome.is_parsed,
            "fault": str(outcome.fault.value),
            "plan": self.plan,
            "notes": outcome.notes(),
            "num_tokens": self.num_tokens,
            "num_turns": len(self.turns),
            "ending": "" if outcome.ending is None else str(outcome.ending.value),
            "seconds": float(sum(outcome.seconds.values())),
        }

    def _repr_html_(self) -> str:
        """The rollout in a notebook: what was asked, what was written and what each line did, what it earned."""
        worth = f"reward {self.reward.value:.2f}" if self.outcome.is_valid else "no reward: the environment lost it"
        lines = [
            (number, action.text, action.status, action.note)
            for number, turn in enumerate(self.turns, start=1)
            for action in turn.outcome.actions
        ]
        # An environment of texts has no actions.
        written = html.table(("turn", "action", "status", "note"), lines) if lines else html.paragraph(self.plan)
        head = html.paragraph(f"{self.task.id}: {self.task.instruction}")
        return head + written + html.paragraph(f"{worth}; {self.outcome.notes()}")


def one_turn(
    task: Task, observation: Observation, completion: Completion, outcome: Outcome, reward: RewardFunction
) -> Rollout:
    """The episode of a whole plan: one turn, whose outcome is the episode's."""
    turn = Turn(observation=observation, completion=completion, outcome=outcome)
    return Rollout(task=task, turns=(turn,), outcome=outcome, reward=reward(outcome))


EMPTY_TURN = "(empty)"


def join_turns(plans: Sequence[str]) -> str:
    """Write the turns of an episode as one text, an empty line between two; `split_turns` gives them back.

    Lines without content are left out, since they do nothing.
    """
    return "\n\n".join(squeezed(plan) or EMPTY_TURN for plan in plans)


def split_turns(text: str) -> list[str]:
    """The turns of an episode that was written as one text."""
    parts = [squeezed(part) for part in text.split("\n\n")]
    return ["" if part == EMPTY_TURN else part for part in parts]


def squeezed(plan: str) -> str:
    """A plan without lines that have no content."""
    return "\n".join(line for line in plan.split("\n") if line.strip())
