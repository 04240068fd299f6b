"""JustGRPO (2601.15165): GRPO on the left-to-right likelihood of a masked model, one view per token.

View t hides every token from t on and scores token t, at the sampler's temperature. The likelihood is exact if the
sampler writes left to right.
Departures: K of the N tokens may be sampled without replacement and weighted N / K. Columns after EOS are not scored,
and each sequence is divided by its own length; the public code scores the whole canvas and divides by its length
(`scores_canvas`), and averages over rows whose advantage is not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dllm_rl.errors import ConfigError
from dllm_rl.options import added
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Replays, Rollouts, Views
from dllm_rl.registry import register
from objectives import Count, KLName, NonNegative, counting_scored
from objectives.cj_grpo import CJGRPO


@register("objective", "just_grpo")
@dataclass(frozen=True, slots=True, kw_only=True)
class JustGRPO(CJGRPO):
    """GRPO in autoregressive order.

    Attributes:
        num_steps: Scored tokens per row, None = all, which costs a forward each.
        scores_canvas: Whether columns after EOS count too, as in the public code; nothing drew what stands there.
    """

    name: ClassVar[str] = "just_grpo"
    paper: ClassVar[str] = "2601.15165"
    level: ClassVar[str] = "token"
    replays: ClassVar[Replays] = Replays.NONE
    version: ClassVar[int] = 3
    families: ClassVar[tuple[str, ...]] = ("autoregressive", "masked", "block")
    requires: ClassVar[tuple[str, ...]] = ()
    published: ClassVar[dict[str, Any] | None] = {"scores_canvas": True}

    beta: NonNegative = 0.0
    kl: KLName = "k3"
    num_steps: Count | None = None
    scores_canvas: bool = added(default=False)

    def __post_init__(self) -> None:
        if self.scores_canvas and self.num_steps is not None:
            raise ConfigError(
                f"scores_canvas=True and num_steps={self.num_steps} were given; the length of the canvas is counted by "
                "its views, so that it takes all tokens. Leave num_steps out."
            )

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """For each of the chosen tokens, the canvas with it and all that follows hidden."""
        if self.scores_canvas:
            rollouts = process.scoring_all(rollouts)
        return process.left_to_right(rollouts, generator, num_tokens=self.num_steps)

    def loss(self, inputs: LossInputs) -> Loss:
        """That of GRPO, over the tokens that the views score."""
        return CJGRPO.loss(self, counting_scored(inputs) if self.scores_canvas else inputs)
