"""A policy gradient on the geometric mean of a sequence's token ratios, without a clip."""

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.records.types import Loss
from dllm_rl.registry import register
from objectives import BelowOne, Method, lengths, log_ratio, mean_of_rows, ratio_metrics, token_sum


@register("objective", "geometric")
@dataclass(frozen=True, slots=True, kw_only=True)
class Geometric(Method):
    """Importance-weighted policy gradient.

    power: of the ratio; what is below 1 trusts large ratios less.
    """

    name: ClassVar[str] = "geometric"
    paper: ClassVar[str] = ""
    level: ClassVar[str] = "sequence"
    version: ClassVar[int] = 1

    power: BelowOne = 0.9

    def views(self, rollouts, process, generator):
        return process.one_step(rollouts, generator)

    def loss(self, inputs):
        mean = token_sum(inputs.views, log_ratio(inputs)).sum(-1) / lengths(inputs.rollouts)
        weight = (self.power * mean).exp() / self.power
        metrics = ratio_metrics(mean, inputs.advantages, inputs.rollouts.valid)
        return Loss(value=mean_of_rows(inputs.rollouts, -inputs.advantages * weight), metrics=metrics)
