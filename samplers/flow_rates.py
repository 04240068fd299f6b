"""Discrete flow by rates: a position leaves its token at the summed rate of a step, and then takes another one.

Unlike the exact jump (`samplers.flow_exact`), whose redraw may give the token that was there, these two hold the law of
a step by its rate: Euler's takes the rate at the start of the step (2407.15595), the cumulative one its integral over
the step (FS-DFM, 2509.20624). The last step redraws every position, as it does there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dllm_rl.policies.flow import FlowPolicy, rate_log_prob
from dllm_rl.registry import register
from dllm_rl.types import FlowLaw
from samplers.flow_exact import FlowExactSampler


class _ByRates(FlowExactSampler):
    __slots__ = ()

    def _leaving(self, policy: FlowPolicy, seen: Tensor, times: tuple[Tensor, Tensor]) -> Tensor:
        """1 - exp(-A (1 - p(x))); all of them in the last step, whose rate is infinite."""
        rate = policy.rate(self.law, *times)[:, None]
        leave = -torch.expm1(-rate * (1 - seen.exp()))
        return torch.where(torch.isinf(rate), torch.ones_like(seen), leave)

    def _offered(self, laws: Tensor, tokens: Tensor) -> Tensor:
        """Any token but the one that is left."""
        return laws.scatter(-1, tokens[:, None], -torch.inf)

    def _transition(
        self, policy: FlowPolicy, log_p: Tensor, seen: Tensor, is_same: Tensor, times: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Of the law of a rate."""
        return rate_log_prob(log_p, seen, is_same, policy.rate(self.law, *times)[:, None])


@register("sampler", "flow_euler")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEulerSampler(_ByRates):
    """The rate at the start of each step, held for the whole of it. Options as of `flow_exact`."""

    name: ClassVar[str] = "flow_euler"
    paper: ClassVar[str] = "2407.15595"
    law: ClassVar[FlowLaw] = "euler"


@register("sampler", "flow_cumulative")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCumulativeSampler(_ByRates):
    """The rate's integral over each step, so that few steps move as much as many. Options as of `flow_exact`."""

    name: ClassVar[str] = "flow_cumulative"
    paper: ClassVar[str] = "2509.20624"
    law: ClassVar[FlowLaw] = "cumulative"
