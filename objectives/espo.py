"""ESPO (2512.03759): the ELBO as the action's log-likelihood, one length-normalised ratio per sequence, k2 penalty.

Departures from the public code: columns after EOS are not scored, and the ratio is normalised by the scored tokens;
there every column of the canvas is scored and counted. Counts are drawn uniformly (there rounded half to even), and
are stratified over the pairs of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from dllm_rl.advantages import AdvantageName
from dllm_rl.errors import ConfigError
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, Clip, ClipName, Count, Method, NonNegative, mean_of_rows, sequence_terms


@register("objective", "espo")
@dataclass(frozen=True, slots=True, kw_only=True)
class ESPO(Method):
    """ELBO-based Sequence-level Policy Optimization. num_draws: noise levels; antithetic: two views each, not one.

    levels: drawn at random, or the num_draws x 2 nodes of a quadrature (GDPO, 2510.08554), which are always antithetic.
    clip_rule: ppo, or one that bounds A < 0 too (dual, unconditional).
    """

    name: ClassVar[str] = "espo"
    paper: ClassVar[str] = "2512.03759"
    level: ClassVar[str] = "sequence"

    beta: NonNegative = 3e-3
    advantage: AdvantageName = "leave_one_out"
    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2
    clip_rule: ClipName = "ppo"
    num_draws: Count = 2
    antithetic: bool = True
    levels: Literal["random", "quadrature"] = "random"

    def __post_init__(self) -> None:
        if self.levels == "quadrature" and not self.antithetic:
            raise ConfigError("antithetic=False was given; views of a quadrature are pairs. Leave it out.")

    @property
    def estimates_elbo(self) -> bool:
        """Yes with random levels; quadrature has a small bias."""
        return self.levels == "random"

    @property
    def num_views(self) -> int | None:
        """Two for each draw that is antithetic."""
        return self.num_draws * (2 if self.antithetic or self.levels == "quadrature" else 1)

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Antithetic pairs of ELBO views; the exact view for the autoregressive family."""
        if self.levels == "quadrature":
            return process.quadrature(rollouts, generator, num_nodes=2 * self.num_draws)
        return process.elbo(rollouts, generator, num_draws=self.num_draws, antithetic=self.antithetic)

    def loss(self, inputs: LossInputs) -> Loss:
        """(1/R) sum_b [-ppo(exp(DB / N_b), A_b) + beta dB^2 / (2 N_b)]."""
        clip = Clip(low=self.clip_low, high=self.clip_high, rule=self.clip_rule)
        terms = sequence_terms(inputs, clip, self.beta)
        return Loss(value=mean_of_rows(inputs.rollouts, terms.entries), metrics=terms.metrics)
