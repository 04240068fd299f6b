"""ESPO (2512.03759): the ELBO as the action's log-likelihood, one length-normalised ratio per sequence, k2 penalty.

Departures from the public code: columns after EOS are not scored, and the ratio is normalised by the scored tokens;
there every column of the canvas is scored and counted (`scores_canvas`). Counts are drawn uniformly (there rounded half
to even), and are stratified over the pairs of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from dllm_rl.advantages import AdvantageName
from dllm_rl.errors import ConfigError
from dllm_rl.options import added
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import (
    BelowOne,
    Clip,
    ClipName,
    Count,
    Method,
    NonNegative,
    counting_scored,
    mean_of_rows,
    sequence_terms,
)


@register("objective", "espo")
@dataclass(frozen=True, slots=True, kw_only=True)
class ESPO(Method):
    """ELBO-based Sequence-level Policy Optimization.

    Attributes:
        num_draws: Noise levels.
        antithetic: Two views each, not one.
        levels: Drawn at random, or the num_draws x 2 nodes of a quadrature (GDPO, 2510.08554), which are always
            antithetic, or as many strata, of which one is hidden at a time (DACA-GRPO, 2605.16342): no ELBO.
        clip_rule: Ppo, or one that bounds A < 0 too (dual, unconditional).
        scores_canvas: Whether columns after EOS count too, as in the public code; nothing drew what stands there.
    """

    name: ClassVar[str] = "espo"
    paper: ClassVar[str] = "2512.03759"
    level: ClassVar[str] = "sequence"
    published: ClassVar[dict[str, Any] | None] = {"scores_canvas": True}

    beta: NonNegative = 3e-3
    advantage: AdvantageName = "leave_one_out"
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    clip_rule: ClipName = "ppo"
    num_draws: Count = 2
    antithetic: bool = True
    levels: Literal["random", "quadrature", "strata"] = "random"
    scores_canvas: bool = added(default=False)

    def __post_init__(self) -> None:
        if self.levels != "random" and not self.antithetic:
            raise ConfigError(f"antithetic=False was given, which levels={self.levels!r} do not read. Leave it out.")
        if self.scores_canvas and not self.antithetic:
            raise ConfigError(
                "antithetic=False and scores_canvas=True were given; only a pair scores every column of the canvas. "
                "Leave one of them out."
            )

    @property
    def estimates_elbo(self) -> bool:
        """Yes with random levels; quadrature has a small bias, and strata give no bound."""
        return self.levels == "random"

    @property
    def num_views(self) -> int | None:
        """Two for each draw that is antithetic."""
        return self.num_draws * (2 if self.antithetic else 1)

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Antithetic pairs of ELBO views, or strata; the exact view for the autoregressive family."""
        if self.scores_canvas:
            rollouts = process.scoring_all(rollouts)
        if self.levels == "quadrature":
            return process.quadrature(rollouts, generator, num_nodes=2 * self.num_draws)
        if self.levels == "strata":
            return process.strata(rollouts, generator, num_strata=2 * self.num_draws)
        return process.elbo(rollouts, generator, num_draws=self.num_draws, antithetic=self.antithetic)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-ppo(exp(DB / N_b), A_b) + beta dB^2 / (2 N_b)]."""
        if self.scores_canvas:
            inputs = counting_scored(inputs)
        clip = Clip(low=self.clip_low, high=self.clip_high, rule=self.clip_rule)
        terms = sequence_terms(inputs, clip, self.beta)
        return Loss(value=mean_of_rows(inputs.rollouts, terms.entries), metrics=terms.metrics)
