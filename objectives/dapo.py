"""DAPO (2503.14476): GRPO with a wider upper clip, a mean over all tokens of the step, and no penalty.

Groups without variance have advantage 0; drawing others in their place (dynamic sampling) is the trainer's affair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from dllm_rl.records.types import LossInputs
from dllm_rl.registry import register
from objectives import NonNegative, mean_of_tokens
from objectives.grpo import GRPO


@register("objective", "dapo")
@dataclass(frozen=True, slots=True, kw_only=True)
class DAPO(GRPO):
    """Decoupled clip and dynamic sampling Policy Optimization: clip-higher and the token-level mean."""

    name: ClassVar[str] = "dapo"
    paper: ClassVar[str] = "2503.14476"
    published: ClassVar[dict[str, Any] | None] = {}

    beta: NonNegative = 0.0
    clip_high: NonNegative = 0.28

    def reduce(self, inputs: LossInputs, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
        """Every token of the step weighs the same, so long sequences weigh more."""
        return mean_of_tokens(inputs.rollouts, entries)
