"""RPD (2609.36452): writes from left to right what the model is sure of, or what its last layers agree on.

A position is a candidate where its best token has probability `threshold`, or at least `least_confidence` and a stable
history: the last layers agree on the token, and it has not lost probability on the way. Candidates are taken from left
to right, as long as the entropies of the open positions before them that are not taken sum to at most `budget` nats.
Departures: the layers that are read are the last half, as there, but at least as many as count; so small models have a
history. Two of the paper's settings differ by model (stability 3.5 and drop_weight 15 for LLaDA, 2.5 and 20 for Dream);
the defaults lie between. The paper decodes greedily.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.lens import num_layers
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.registry import register
from samplers.config import check_count, is_number
from samplers.loop.context import StepContext, Watcher
from samplers.loop.layered import AGREEMENT, DROP, LayeredDenoising
from samplers.loop.sampling import in_chunks
from samplers.rules.threshold import ThresholdSampler


@register("sampler", "rpd")
@dataclass(frozen=True, slots=True, kw_only=True)
class RPDSampler(ThresholdSampler):
    """Reliable Parallel Decoding. Where a step takes no candidate, it writes the surest of the first open positions.

    Under the grammar, confidence and entropy are those of what it allows, and the layers' predictions the model's own.

    Attributes:
        least_confidence: Probability of the best token below which a position is never a candidate.
        stability: Least agreeing layers, less the drop of probability times drop_weight, of a candidate below the
            threshold. None: half of max_agreement.
        max_agreement: Agreeing layers that count, at most; never more than the model has.
        drop_weight: Weight of the drop of the token's probability from its peak in the agreeing layers.
        budget: Largest sum of the entropies of open positions that a candidate is taken past, in nats.
        window: Number of first open positions of which one is written where no candidate is taken.
    """

    name: ClassVar[str] = "rpd"
    paper: ClassVar[str] = "2609.36452"
    families: ClassVar[tuple[str, ...]] = ("masked",)
    least_confidence: float = 0.6
    stability: float | None = None
    max_agreement: int = 6
    drop_weight: float = 17.5
    budget: float = 4.0
    window: int = 32

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """The candidates within the budget; where there are none, the best of the window."""
        taken = self._within_budget(context, self._candidates(context))
        in_window = context.is_open & (context.is_open.cumsum(dim=1) <= self.window)
        surest = context.best(context.log_odds.masked_fill(~in_window, -torch.inf), 1)
        return torch.where(taken.any(dim=1, keepdim=True), taken, surest)

    def _candidates(self, context: StepContext) -> Bool[Tensor, "b n"]:
        agreement, drop = context.memory[AGREEMENT], context.memory[DROP]
        least = self.max_agreement / 2 if self.stability is None else self.stability
        is_stable = agreement.clamp(max=self.max_agreement) - self.drop_weight * drop >= least
        high, low = (math.log(p / (1 - p)) for p in (self.threshold, self.least_confidence))
        return ((context.log_odds >= high) | (context.log_odds >= low) & is_stable) & context.is_open

    def _within_budget(self, context: StepContext, candidates: Bool[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        """From left to right: those before which at most `budget` nats stay open."""
        taken, passed = torch.zeros_like(candidates), torch.zeros(len(candidates))
        entropy = torch.where(context.is_open, context.entropy, 0.0)
        for place in range(candidates.shape[1]):
            taken[:, place] = candidates[:, place] & (passed <= self.budget)
            passed = passed + torch.where(taken[:, place], 0.0, entropy[:, place])
        return taken

    @torch.no_grad()
    def generate(
        self, policy: BasePolicy, prompts: Prompts, *, seed: int, watcher: Watcher | None = None
    ) -> Completions:
        """Sample one completion a row. Raises ConfigError where no token of this model can be as stable as asked."""
        depth = num_layers(policy.model)
        rule = replace(self, max_agreement=min(self.max_agreement, depth))
        if rule.stability is not None and rule.stability > rule.max_agreement:
            raise ConfigError(
                f"stability={rule.stability:g}: no token reaches it, as at most {rule.max_agreement} agreeing layers "
                f"count (max_agreement, and this model has {depth}). Give at most that."
            )
        read = max(depth // 2, rule.max_agreement)

        def write(part: Prompts, watcher: Watcher) -> Completions:
            return LayeredDenoising(rule, policy, part, seed, watcher, num_layers=read).run()

        if watcher is not None:
            return write(prompts, watcher)
        return in_chunks(policy, prompts, lambda part: write(part, Watcher()))

    def __post_init__(self) -> None:
        if self.cache not in ("exact", "none") or self.guidance:
            raise ConfigError(
                f"cache={self.cache!r} and guidance={self.guidance:g} were given; rpd reads the layers of whole "
                "forwards without guidance. Leave them out."
            )
        ThresholdSampler.__post_init__(self)
        if not 0 < self.least_confidence < self.threshold:
            raise ConfigError(
                f"least_confidence={self.least_confidence}: expected a probability above 0 and below the threshold, "
                f"{self.threshold}; at the threshold layers decide nothing, and `threshold` is without them"
            )
        for name in ("max_agreement", "window"):
            check_count(name, getattr(self, name), "layers" if name == "max_agreement" else "positions")
        for name in ("stability", "drop_weight", "budget"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value >= 0):
                raise ConfigError(f"{name}={value}: expected a number of at least 0")
