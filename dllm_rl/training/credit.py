"""Credit of single turns, beside the advantage of their episode.

`gigpo` (2505.10978): turns of a group that stood at the same page are compared by what followed. `rule_tree` (OpAgent):
turns that did nothing are charged, by rules; there is no published weight against the episode's advantage, and here the
charge is `PENALTY` less the group's mean.

Legend: b rows (turns).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.records.rollout import Rollout, Turn
from dllm_rl.records.tasks import Observation
from dllm_rl.records.types import TurnFacts

StepCredit = Literal["none", "gigpo", "rule_tree", "strict_rule_tree"]
NO_CREDIT: StepCredit = "none"
# Discount of what follows a turn, and weight of the step's advantage (2505.10978).
DISCOUNT, WEIGHT = 0.95, 1.0
# The example value of OpAgent's report.
PENALTY = 0.001


def turn_facts(rollouts: Sequence[Rollout]) -> TurnFacts:
    """Facts of all rows of these episodes, in order. Each call that a turn was written in has those of the turn."""
    known: dict[Observation, int] = {}
    rows = [(item, at) for item in rollouts for at, turn in enumerate(item.turns) for _ in turn.completion.trained]
    idle = [[float(_is_idle(item, at, is_strict=is_strict)) for is_strict in (False, True)] for item, at in rows]
    anchors = [known.setdefault(item.turns[at].observation, len(known)) for item, at in rows]
    return TurnFacts(
        anchors=torch.tensor(anchors),
        to_go=torch.tensor([len(item.turns) - 1 - at for item, at in rows]),
        is_idle=torch.tensor(idle),
    )


def _is_idle(rollout: Rollout, at: int, *, is_strict: bool) -> bool:
    """Whether a turn is charged. The rules in the published order:

    1. Nothing that it asked for was done: charged.
    2. It led to another page: not charged.
    3. It acted on a control: not charged. The strict order has this after 4, or it would hide it.
    4. The page is as it was: charged.
    5. More is right than before, or fewer errors stand there: not charged; else charged.
    """
    turn = rollout.turns[at]
    if not any(action.status == "ok" for action in turn.outcome.actions):
        return True
    following = rollout.turns[at + 1].observation if at + 1 < len(rollout.turns) else None
    if following is None or following.titles != turn.observation.titles:
        return False
    rules: list[Callable[[], bool | None]] = [
        lambda: False if _has_acted(turn) else None,
        lambda: True if following == turn.observation else None,
    ]
    for rule in reversed(rules) if is_strict else rules:
        verdict = rule()
        if verdict is not None:
            return verdict
    before = rollout.turns[at - 1].outcome.fields if at else ()
    is_better = sum(field.is_correct for field in turn.outcome.fields) > sum(field.is_correct for field in before)
    return not (is_better or len(following.errors) < len(turn.observation.errors))


def _has_acted(turn: Turn) -> bool:
    """Whether something was done to a control, which a line about one names by its ref."""
    return any(action.status == "ok" and ".e" in action.text.partition('"')[0] for action in turn.outcome.actions)


def step_advantages(
    credit: StepCredit, facts: TurnFacts, rewards: Float[Tensor, " b"], group_ids: Int[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """What is added to each turn's advantage."""
    if credit == "gigpo":
        value = rewards * DISCOUNT ** facts.to_go.float()
        return WEIGHT * _less_mean(value, torch.stack([group_ids, facts.anchors]))
    if credit in ("rule_tree", "strict_rule_tree"):
        charged = -PENALTY * facts.is_idle[:, int(credit == "strict_rule_tree")]
        return _less_mean(charged, group_ids[None])
    return torch.zeros_like(rewards)


def _less_mean(values: Float[Tensor, " b"], keys: Int[Tensor, "k b"]) -> Float[Tensor, " b"]:
    """Values less the mean of those with the same keys; exactly 0 for one that is alone."""
    _, pool = keys.unique(dim=1, return_inverse=True)
    counts = torch.bincount(pool).to(values.dtype)
    means = torch.zeros_like(counts).index_add(0, pool, values) / counts
    return torch.where(counts[pool] > 1, values - means[pool], torch.zeros_like(values))
