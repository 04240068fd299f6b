"""TraceRL (2509.06949): CJ-GRPO on the whole trajectory, with `shrink` neighbouring steps merged into one view.

Departures from the public code: the penalty is the KL to the reference policy, there to the old one. Every token weighs
the same, there every segment. Segments are `shrink` steps of the sampler, there of the row's own steps. Sums over a
sequence are divided by its length, and scores are at the sampler's temperature. The group's standard deviation has
n - 1 in its denominator and a floor; there it has n, and no floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from dllm_rl.policies.process import ForwardProcess
from dllm_rl.records.types import Replays, Rollouts, Views
from dllm_rl.registry import register
from objectives import Count, KLName, NonNegative
from objectives.cj_grpo import CJGRPO


@register("objective", "tracerl")
@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRL(CJGRPO):
    """Trajectory-aware RL.

    Attributes:
        shrink: Steps per view; 1 is CJ-GRPO on all steps. num_steps is not read, and refused.

    Undefined for the flow family, whose transitions do not merge.
    """

    name: ClassVar[str] = "tracerl"
    paper: ClassVar[str] = "2509.06949"
    replays: ClassVar[Replays] = Replays.MERGED
    families: ClassVar[tuple[str, ...]] = ("autoregressive", "masked", "block", "slot")
    published: ClassVar[dict[str, Any] | None] = {"beta": 0.0}

    beta: NonNegative = 0.01
    kl: KLName = "k3"
    num_steps: Literal[8] = 8
    shrink: Count = 8

    @property
    def num_views(self) -> int | None:
        """One for each `shrink` recorded steps."""
        return None

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """The canvas before each segment of `shrink` steps, scoring all that the segment committed."""
        num_steps = process.own_steps(rollouts).shape[1]
        first = torch.arange(0, num_steps, self.shrink, device=rollouts.completion_ids.device)
        steps = first[:, None].expand(-1, rollouts.num_rows)
        return process.replay_steps(rollouts, steps, torch.ones_like(steps, dtype=torch.float32), span=self.shrink)
