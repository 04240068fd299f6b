"""Dr. GRPO (2503.20783): GRPO without its two biases, the division by the group's std and by each sequence's length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.records.types import LossInputs
from dllm_rl.registry import register
from objectives import NonNegative, mean_of_canvas
from objectives.grpo import GRPO


@register("objective", "dr_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class DrGRPO(GRPO):
    """GRPO done right: centred advantage, constant normaliser, no penalty."""

    name: ClassVar[str] = "dr_grpo"
    paper: ClassVar[str] = "2503.20783"
    published: ClassVar[dict[str, Any] | None] = {}

    beta: NonNegative = 0.0
    advantage: AdvantageName = "centred"

    def reduce(self, inputs: LossInputs, entries: Float[Tensor, "b l"]) -> Float[Tensor, ""]:
        """The sum over tokens divided by rows x canvas length."""
        return mean_of_canvas(inputs.rollouts, entries)
