"""SPG (2510.09541): raise a lower bound of the log-likelihood of good completions, lower an upper one of bad ones.

E, the mean log-probability of hidden tokens, is the lower one; U, a power mean over levels t of p [hidden] / t, the
upper one. U is an upper bound of E, not of the likelihood.
Departures: random levels over the whole canvas unless `block_size` is set. The paper samples block by block, and its
views hide a random part of one block, with the earlier ones clean and the later ones hidden; the public code draws a
block for each level, here all levels of a row share one. It hides a drawn number of tokens, at least one, and weights
by the share that it hid (`counts`); here each token is hidden with probability t, at least .05, and t is the weight, so
that a view may hide nothing: E leaves it out. It may hide parts of the prompt and of earlier blocks too; here both stay
clean. It takes the logarithm of a power of the probability, which underflows; here logarithms are added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_rl.advantages import AdvantageName
from dllm_rl.errors import ConfigError
from dllm_rl.options import added
from dllm_rl.policies.process import ForwardProcess, stratified
from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views
from dllm_rl.registry import register
from objectives import BelowOne, Count, Method, NoPenalty, Positive, lengths, scored, sum_of_rows

# Levels below it would give single tokens weights beyond 20.
LOWEST_LEVEL = 0.05


@register("objective", "spg")
@dataclass(frozen=True, slots=True, kw_only=True)
class SPG(Method):
    """Sandwiched Policy Gradient.

    Attributes:
        num_levels: views.
        power: Of the mean in U.
        mix: Share of U for bad completions.
        block_size: Columns (slot family: slots) of the one block that all levels of a row look at; None = the whole
            canvas.
        counts: Whether a level is a number of tokens, at least one, as in the public code; needs the whole canvas.
    """

    name: ClassVar[str] = "spg"
    paper: ClassVar[str] = "2510.09541"
    level: ClassVar[str] = "sequence"
    families: ClassVar[tuple[str, ...]] = ("masked", "block", "slot")
    needs_old: ClassVar[bool] = False
    version: ClassVar[int] = 3
    published: ClassVar[dict[str, Any] | None] = {"counts": True}

    beta: NoPenalty = 0.0
    advantage: AdvantageName = "centred"
    num_levels: Count = 2
    power: Positive = 1.5
    mix: BelowOne = 0.5
    block_size: Count | None = None
    counts: bool = added(default=False)

    def __post_init__(self) -> None:
        if self.counts and self.block_size is not None:
            raise ConfigError(
                f"counts=True and block_size={self.block_size} were given; numbers of tokens are drawn over the whole "
                "canvas. Leave one of them out."
            )

    @property
    def num_views(self) -> int | None:
        """One for each level."""
        return self.num_levels

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Views at levels t spread evenly; `weight` is 1 / t."""
        if self.counts:
            return self._counted(rollouts, process, generator)
        level = stratified(rollouts.num_rows, self.num_levels, generator).to(rollouts.completion_ids.device)
        level = LOWEST_LEVEL + (1 - LOWEST_LEVEL) * level
        hidden = process.random_units(rollouts, level, generator)
        if self.block_size is None:
            return process.hide_units(rollouts, hidden, 1 / level, generator)
        inside, later = one_block(process.units(rollouts), self.block_size, generator)
        drawn = process.hide_units(rollouts, hidden & inside | later, 1 / level, generator)
        seen = process.hide_units(rollouts, inside[None], torch.ones_like(level[:1]), generator).score
        return replace(drawn, score=drawn.score & seen, weight=drawn.weight * seen)

    def _counted(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Views that hide n of the N pieces of a row, n uniform on 1 to N; `weight` is N / n."""
        member = process.units(rollouts)
        total = member.sum(-1)
        level = stratified(rollouts.num_rows, self.num_levels, generator).to(member.device)
        count = (1 + level * total).floor().clamp(max=total.clamp(min=1))
        keys = process.random_keys(rollouts, self.num_levels, generator)
        hidden = torch.where(member, keys, 2.0).argsort(-1).argsort(-1) < count[..., None]
        return process.hide_units(rollouts, hidden & member, total / count, generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """-(1/T) sum_b A_b N_b l_b, with l = E for A >= 0, else mix U + (1 - mix) E."""
        rollouts, views, advantages = inputs.rollouts, inputs.views, inputs.advantages
        log_p = scored(views, inputs.new)
        lower, upper = lower_bound(views, log_p), upper_bound(views, log_p, self.power)
        bound = torch.where(advantages >= 0, lower, self.mix * upper + (1 - self.mix) * lower)
        total = sum_of_rows(rollouts, -advantages * lengths(rollouts) * bound)
        return Loss(value=total / max(rollouts.totals.tokens, 1), metrics={})


def one_block(
    member: Bool[Tensor, "b n"], size: int, generator: torch.Generator
) -> tuple[Bool[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """The members of a block drawn uniformly from those of each row that have any, and the members after it."""
    has_any = F.pad(member, (0, -member.shape[1] % size)).unflatten(-1, (-1, size)).any(-1)
    num_blocks = has_any.sum(-1, keepdim=True).clamp(min=1)
    level = torch.rand(len(member), 1, generator=generator, device=generator.device).to(member.device)
    drawn = (level * num_blocks).floor().clamp(max=num_blocks - 1)
    chosen = (has_any & (has_any.cumsum(-1) - 1 == drawn)).long().argmax(-1, keepdim=True)
    block = torch.arange(member.shape[1], device=member.device) // size
    return member & (block == chosen), member & (block > chosen)


def lower_bound(views: Views, log_p: Float[Tensor, "k b l"]) -> Float[Tensor, " b"]:
    """E: the mean over views of the mean log-probability of hidden tokens."""
    per_view = log_p.sum(-1) / views.score.sum(-1).clamp(min=1)
    is_used = views.score.any(-1)
    return per_view.sum(0) / is_used.sum(0).clamp(min=1)


def upper_bound(views: Views, log_p: Float[Tensor, "k b l"], power: float) -> Float[Tensor, " b"]:
    """U: the mean over tokens hidden in some view of (1 / power) log mean_t (p^power [hidden] / t)."""
    is_seen = views.score.any(0)
    terms = torch.where(views.score, power * log_p + views.weight.clamp(min=1).log(), -torch.inf)
    terms = torch.where(is_seen, terms, 0.0)
    per_token = (terms.logsumexp(0) - torch.tensor(float(views.num_views)).log()) / power
    return torch.where(is_seen, per_token, 0.0).sum(-1) / is_seen.sum(-1).clamp(min=1)
