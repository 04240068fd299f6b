"""One rollout as a record, free of torch: the task, what was seen, written and done turn by turn, and what it earned.

Training, evaluation, snapshots, films and replay make and read this record, and `Rollout.to_row` is its one spelling in
`rollouts.jsonl`, `results.parquet` and everything that is compared with them. A whole plan is an episode of one turn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dllm_rl import html
from dllm_rl.records.evidence import Evidence
from dllm_rl.records.tasks import Fault, Observation, Outcome, RewardRecord, Task
from dllm_rl.records.truth import record_of
from dllm_rl.reward import Reward, Score, scores

if TYPE_CHECKING:
    from dllm_rl.records.types import SampledRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What was written at one turn, and how.

    Attributes:
        plan: Text of what was written.
        prompt: Text that the policy read; "" where no policy wrote the plan (a gold plan, a recorded one).
        num_tokens: Length of what was written, EOS included, FILL and PAD not. A grammar has no influence on it: tokens
            that it forced count like all others.
        sampled: The sampler's record of it, token ids included; None where no policy wrote it, or several calls.
        calls: The calls of roles that it was put together from (`dllm_rl.roles`); () where it was written as it is.
    """

    plan: str
    prompt: str = ""
    num_tokens: int = 0
    sampled: SampledRow | None = None
    calls: tuple[Call, ...] = ()

    @property
    def trained(self) -> tuple[Completion, ...]:
        """What of it is trained on: itself, or the calls of the policy that is trained."""
        return tuple(call.completion for call in self.calls if call.is_trained) if self.calls else (self,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What one role wrote at a turn.

    Attributes:
        role: A name of `dllm_rl.roles.Role`.
        is_trained: Whether the policy that is trained wrote it, and not one that the role has of its own.
    """

    role: str
    completion: Completion
    is_trained: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange with the environment.

    Attributes:
        observation: What the policy could see.
        completion: What it wrote.
        outcome: What has come of the episode by its end; its `actions` are those of this turn, and so the feedback that
            the next turn builds on.
    """

    observation: Observation
    completion: Completion
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One episode.

    Attributes:
        outcome: Of the whole episode, by which it is judged.
        reward: Of the whole episode; it counts only where the outcome is valid.
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
        """The rollout as a row of plain values, the same wherever it is written.

        Args:
            labels: Further columns.
        """
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
            "claim": reward.claim,
            "components": json.dumps(dict(reward.components), sort_keys=True) if reward.components else "",
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
        lost = {Fault.ENVIRONMENT: "no reward: the environment lost it", Fault.JUDGE: "no reward: the judge gave none"}
        worth = lost.get(self.outcome.fault, f"reward {self.reward.value:.2f}")
        lines = [
            (number, action.text, action.status, action.note)
            for number, turn in enumerate(self.turns, start=1)
            for action in turn.outcome.actions
        ]
        # An environment of texts has no actions.
        written = html.table(("turn", "action", "status", "note"), lines) if lines else html.paragraph(self.plan)
        head = html.paragraph(f"{self.task.id}: {self.task.instruction}")
        return head + written + html.paragraph(f"{worth}; {self.outcome.notes()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An episode that is over and has no reward yet."""

    task: Task
    turns: tuple[Turn, ...]
    outcome: Outcome


def one_turn(task: Task, observation: Observation, completion: Completion, outcome: Outcome) -> Attempt:
    """The episode of a whole plan: one turn, whose outcome is the episode's."""
    turn = Turn(observation=observation, completion=completion, outcome=outcome)
    return Attempt(task=task, turns=(turn,), outcome=outcome)


def rewarded(reward: Reward, attempts: Sequence[Attempt]) -> list[Rollout]:
    """Reward episodes, in order. One that the environment lost earns nothing and is not shown to the reward.

    An episode for which there is no reward, since a judge did not answer, is lost as well.
    """
    judged = [item for item in attempts if item.outcome.is_valid]
    found = iter(scores(reward, [Evidence.of(item.task, item.turns, item.outcome) for item in judged]))
    return [_rewarded(item, next(found) if item.outcome.is_valid else Score()) for item in attempts]


def _rewarded(attempt: Attempt, score: Score) -> Rollout:
    outcome = attempt.outcome
    if score.fault:
        outcome = replace(outcome, fault=Fault.JUDGE, fault_reason=f"no reward: {score.fault}")
    record = record_of(outcome, score.value, claim=score.claim, components=score.components)
    return Rollout(task=attempt.task, turns=attempt.turns, outcome=outcome, reward=record)


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
