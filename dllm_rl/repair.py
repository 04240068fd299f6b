"""Repair by remasking: after feedback a diffusion policy goes on from its last plan instead of writing a new one.

A line stays if it says what a field shall hold, was done, and the feedback does not name it. All else is masked again,
also what follows the last line, so that lines can be added. What stays is given (`Prompts.given`): it is read and not
drawn, and every likelihood is one of the rest given it. No publication has this; it is our own.

Only plans on the same page can be repaired: on another one their refs mean other controls.
Legend: l columns of the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from dllm_rl import registry
from dllm_rl.episodes import Situation
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.canvas import Canvas
from dllm_rl.records.plan import parse_turn
from dllm_rl.records.rollout import Turn
from dllm_rl.records.tasks import Observation
from dllm_rl.records.types import Prompts

# Families that go on from a canvas which is partly written; so do those that derive from them.
FAMILIES = ("masked", "block")
# Lines that may be run again: afterwards a field holds what it held before.
_REPEATABLE = frozenset({"fill", "select", "check", "uncheck", "choose", "clear", "upload"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """How much of the last plan stays.

    Attributes:
        confidence: Probability of a draw below which its token is masked again, also in a line that stays; 0 for none.
            In a greedy pass it is the probability of the token at temperature 1.
    """

    confidence: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < 1:
            raise ConfigError(f"repair.confidence is {self.confidence}; expected a probability from 0 up to below 1.")

    def begin(self, policy: BasePolicy, prompts: Prompts, situations: Sequence[Situation]) -> Prompts:
        """The prompts, with what stays of each last plan."""
        given = torch.stack([self.canvas(policy, item) for item in situations])
        return replace(prompts, given=given) if (given != policy.process.blank_id).any() else prompts

    def canvas(self, policy: BasePolicy, situation: Situation) -> Int[Tensor, " l"]:
        """What stands when the next turn is begun, blank elsewhere."""
        canvas = policy.empty_canvas(1)[0]
        if not situation.turns or situation.turns[-1].observation.titles != situation.observation.titles:
            return canvas
        last = situation.turns[-1]
        drawn = last.completion.sampled
        if drawn is None:
            return canvas
        written = drawn.completions.rows(torch.tensor([drawn.row]))
        ids = written.ids[0]
        kept = torch.tensor(kept_lines(last, situation.observation), dtype=torch.long)
        stays = torch.isin(line_numbers(policy.canvas, ids), kept)
        if self.confidence:
            stays &= written.trajectory.log_probs[0] >= math.log(self.confidence)
        return torch.where(stays, ids, canvas)


def refuse_repair(family: str, *, is_aligned: bool) -> None:
    """Raise ConfigError where a policy cannot go on from a plan that is partly written."""
    if set(FAMILIES).isdisjoint(registry.get("policy", family).lineage()):
        raise ConfigError(
            f"repair was given; the {family} family cannot go on from a canvas that is partly written. Leave it out, "
            f"or take a policy of the family {' or '.join(FAMILIES)}, or of one that derives from them."
        )
    if not is_aligned:
        raise ConfigError(
            "repair was given; on a canvas with free-running lines a line that grows moves all others. Leave it out, "
            "or take a policy with facts.line_width."
        )


def kept_lines(turn: Turn, now: Observation) -> list[int]:
    """Numbers of the lines that stay.

    Args:
        now: The page after the turn, with what it complains about.
    """
    return [item.line for item in turn.outcome.actions if item.status == "ok" and _stays(item.text, turn, now)]


def _stays(text: str, turn: Turn, now: Observation) -> bool:
    actions = parse_turn(text).actions
    # What is written for an environment of texts need not be one action.
    if len(actions) != 1:
        return False
    (action,) = actions
    control, same = turn.observation.control(action.ref), now.control(action.ref)
    if action.verb not in _REPEATABLE or control is None or same is None:
        return False
    # A control that appears above moves the refs of those below.
    if (control.kind, control.name, control.group) != (same.kind, same.name, same.group):
        return False
    return not any(name and name in error for name in (control.name, control.group) for error in now.errors)


def line_numbers(canvas: Canvas, ids: Int[Tensor, " l"]) -> Int[Tensor, " l"]:
    """The line that each column is part of, as an episode counts them: from 1, without empty lines; 0 for no line."""
    (newline,) = canvas.newline_ids
    is_newline = ids == newline
    place = is_newline.cumsum(0) - is_newline.long()
    numbers, count = torch.zeros_like(ids), 0
    for own in place.unique().tolist():
        columns = canvas.until_eos(ids) & (place == own)
        if canvas.decode(ids[columns]).strip():
            count += 1
            numbers[columns & (ids != canvas.eos_id)] = count
    return numbers
