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
from dllm_rl.types import FlowLaw, Prompts
from samplers._noise import JUMP, TOKEN, uniform, uniform_at
from samplers._record import Recorder
from samplers._statistics import entropy, pick
from samplers.flow_exact import FlowExactSampler


class _ByRates(FlowExactSampler):
    __slots__ = ()

    def _step(
        self,
        policy: FlowPolicy,
        prompts: Prompts,
        canvas: Tensor,
        logits: Tensor,
        times: tuple[Tensor, Tensor],
        record: Recorder,
        step: int,
        seed: int,
    ) -> Tensor:
        """Move the positions that leave their token, and add every position's transition to the record."""
        temperature = self._temperature(step)
        scaled = logits if temperature in (0.0, 1.0) else logits / temperature
        total = scaled.logsumexp(dim=-1)
        seen = scaled.gather(-1, canvas[..., None]).squeeze(-1) - total
        rate = policy.rate(self.law, *times)[:, None]
        is_last = step + 1 == self.num_steps
        stay = (-rate * (1 - seen.exp())).exp() if not is_last else torch.zeros_like(seen)
        leaves = uniform(seed, prompts.row_ids, torch.arange(canvas.shape[1]), step, JUMP) >= stay
        row, column = leaves.nonzero(as_tuple=True)
        laws = logits[row, column]
        others = laws if is_last else laws.scatter(-1, canvas[row, column][:, None], -torch.inf)
        drawn, _ = pick(others, temperature, uniform_at(seed, prompts.row_ids[row], column, step, TOKEN))
        new = canvas.clone()
        new[row, column] = drawn
        log_p = scaled.gather(-1, new[..., None]).squeeze(-1) - total
        record.log_probs += rate_log_prob(log_p, seen, new == canvas, rate)
        record.entropy[row, column] = entropy(laws)
        record.commit_step[:] = step
        return new


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
