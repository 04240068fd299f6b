"""The masked-diffusion family (MDLM 2406.07524, LLaDA 2502.09992, Dream 2508.15487): bidirectional, MASK to token.

The forward process replaces positions by MASK, each once (absorbing masks). Its ELBO is in count form (LLaDA): of the N
editable units a uniform number n is hidden, and the terms at the hidden ones have weight (N + 1) / n. So each scored
position has E[sum over views of weight x score] = 1, whatever the share of FILL. The block and the slot family derive
from this process.

Every position reads every other, so every key and value changes when a token is written. `StaleCache` reuses some all
the same, as the approximate caches of Fast-dLLM (2505.22618) do.

Legend: b rows, p prompt length, l canvas, u units of the canvas, k views, s steps, n rows taken, c asked columns,
v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.likelihood.positions import STAYED, UNSCORED, Decision
from dllm_rl.likelihood.terms import joint_terms
from dllm_rl.policies.attention import CAUSAL, Full, Reading
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.blocks import Blocks
from dllm_rl.policies.feed import Tokens
from dllm_rl.policies.interface import empty_keys, keys_of_rows
from dllm_rl.policies.layers import ATTENTION, kinds_of_layers
from dllm_rl.policies.process import (
    ForwardProcess,
    one_a_stratum,
    quadrature_nodes,
    replayable,
    stratified,
    trajectory_of,
)
from dllm_rl.records.types import Rollouts, Views
from dllm_rl.registry import register

if TYPE_CHECKING:
    from transformers import DynamicCache

    from dllm_rl.training.warmstart import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedProcess(ForwardProcess):
    """Columns become MASK in any order. A unit, which is hidden as a whole, is one column.

    Attributes:
        mask_id: Id of MASK.
    """

    family: ClassVar[str] = "masked"
    is_mean_over_masks: ClassVar[bool] = True

    mask_id: int

    @property
    def blank_id(self) -> int:
        """MASK stands everywhere."""
        return self.mask_id

    @property
    def unit_size(self) -> int:
        """Columns of a unit."""
        return 1

    def blocks(self, prompt_mask: Bool[Tensor, "b p"], size: int) -> Blocks:
        """Return where blocks of this size lie, in which a sampler may write the canvas."""
        return Blocks(size=size, offset=torch.zeros_like(prompt_mask.sum(dim=1)))

    def one_step(self, rollouts: Rollouts, generator: torch.Generator, *, prompt_mask_share: float = 0.0) -> Views:
        """Return one view with every column MASK."""
        hidden = torch.ones_like(rollouts.completion_mask)[None]
        view = replace(
            self._clean(rollouts), tokens=self.hide(rollouts, hidden, generator), order=self.natural_order(rollouts)
        )
        if prompt_mask_share == 0:
            return view
        ids = rollouts.prompt_ids
        # Drawn from the last column to the first, so that padding on the left moves no draw.
        uniform = torch.rand(ids.shape[::-1], generator=generator, device=generator.device).flip(0).T.to(ids.device)
        is_hidden = (uniform < prompt_mask_share) & rollouts.prompt_mask
        return replace(view, prompt_tokens=torch.where(is_hidden, self.mask_id, ids)[None])

    def elbo(
        self, rollouts: Rollouts, generator: torch.Generator, *, num_draws: int = 2, antithetic: bool = True
    ) -> Views:
        """Return views with a uniform number of hidden units; a pair hides a subset and its complement."""
        member = self.parts(rollouts)
        total = member.sum(-1)
        level, density = (drawn.to(member.device) for drawn in self.levels(len(member), num_draws, generator))
        count = (level * (total + 1)).floor().clamp(max=total)
        hidden = _random_subset(member, count, generator)
        if antithetic:
            hidden = torch.stack([hidden, member & ~hidden], dim=1).flatten(0, 1)
            count = torch.stack([count, total - count], dim=1).flatten(0, 1)
            density = density.repeat_interleave(2, dim=0)
        weight = (total + 1) / count.clamp(min=1) / hidden.shape[0] / density
        hidden, weight = (self.joined(rollouts, part) for part in (hidden, weight[..., None].expand_as(hidden)))
        return self.hide_units(rollouts, hidden, weight, generator)

    def quadrature(self, rollouts: Rollouts, generator: torch.Generator, *, num_nodes: int = 2) -> Views:
        """Return views that hide a unit with probability t and have weight w_t / t, at the nodes t.

        The nodes t and 1 - t share one draw, a mask and its complement. Given its level the expectation of a view is a
        polynomial in t of degree N - 1, so the estimate is unbiased for completions of N <= 2 num_nodes units, and has
        a small bias beyond. One pair (two nodes) varies less than one pair at a random level from about 12 columns on;
        several pairs vary more than stratified random ones.
        """
        level, share = quadrature_nodes(num_nodes)
        member = self.units(rollouts)
        chance = level[::2, None].expand(len(level) // 2, rollouts.num_rows).to(member.device)
        drawn = self.random_units(rollouts, chance, generator)
        hidden = torch.stack([drawn, member & ~drawn], dim=1).flatten(0, 1)
        weight = (share / level)[:, None].expand(-1, rollouts.num_rows).to(member.device)
        return self.hide_units(rollouts, hidden, weight, generator)

    def units(self, rollouts: Rollouts) -> Bool[Tensor, "b n"]:
        """Return which units have a column that may be hidden; the last unit may be shorter."""
        columns, size = self.editable(rollouts) & ~self.given(rollouts), self.unit_size
        return F.pad(columns, (0, -columns.shape[-1] % size)).unflatten(-1, (-1, size)).any(-1)

    def hide_units(
        self,
        rollouts: Rollouts,
        hidden: Bool[Tensor, "k b n"],
        weight: Float[Tensor, "k b"] | Float[Tensor, "k b n"],
        generator: torch.Generator,
    ) -> Views:
        """Return views with these units MASK, each scoring what it hides."""
        size, length = self.unit_size, rollouts.completion_ids.shape[1]
        columns = hidden.repeat_interleave(size, dim=-1)[..., :length]
        score = columns & rollouts.completion_mask
        of_columns = weight[..., None] if weight.dim() == 2 else weight.repeat_interleave(size, dim=-1)[..., :length]
        return Views(
            tokens=self.hide(rollouts, columns, generator),
            score=score,
            weight=score * of_columns,
            order=self.feed_order(hidden | ~self.units(rollouts), length, generator),
        )

    def hide(
        self, rollouts: Rollouts, hidden: Bool[Tensor, "k b l"], generator: torch.Generator
    ) -> Int[Tensor, "k b l"]:
        """Return the completion with MASK at these columns, and at all that are not editable; what is given stands."""
        tokens = torch.where(hidden | ~self.editable(rollouts), self.mask_id, rollouts.completion_ids)
        given = self.given(rollouts)
        if not given.any():
            return tokens
        first = torch.zeros(1, rollouts.num_rows, dtype=torch.long, device=given.device)
        return torch.where(given, trajectory_of(rollouts).states(first)[0], tokens)

    def left_to_right(self, rollouts: Rollouts, generator: torch.Generator, *, num_tokens: int | None = None) -> Views:
        """Return scored tokens, each in a view that hides it and all that follow."""
        ids, mask = rollouts.completion_ids, rollouts.completion_mask
        total = mask.sum(-1)
        width = max(1, min(int(total.max()), num_tokens or ids.shape[1]))
        keys = torch.rand(mask.shape, generator=generator, device=generator.device).to(ids.device)
        chosen = torch.where(mask, keys, 2.0).argsort(-1)[:, :width].T
        is_used = mask.gather(1, chosen.T).T
        column = torch.arange(ids.shape[1], device=ids.device)
        score = (column == chosen[..., None]) & is_used[..., None]
        share = total / is_used.sum(0).clamp(min=1)
        return Views(
            tokens=self.hide(rollouts, column >= chosen[..., None], generator),
            score=score,
            weight=score.float(),
            loss_weight=score * share[:, None],
            at_temperature=True,
        )

    def replay_positions(
        self, rollouts: Rollouts, steps: Int[Tensor, "k b"], loss_weight: Float[Tensor, "k b"]
    ) -> Views:
        """Return replayed steps whose terms are decisions on every open position, where the record says how."""
        views = ForwardProcess.replay_positions(self, rollouts, steps, loss_weight)
        record = replayable(rollouts)
        if (law := record.position_law) is None:
            return views
        chosen = (record.commit_step == steps[..., None]) & (loss_weight > 0)[..., None]
        is_open = (views.tokens == self.mask_id) & self._in_written_block(rollouts, chosen, law.block_length)
        written = torch.where(rollouts.completion_mask, rollouts.completion_ids, UNSCORED)
        return replace(
            views,
            score=is_open,
            weight=is_open.float(),
            loss_weight=is_open * loss_weight[..., None].float(),
            targets=torch.where(chosen, written, STAYED),
            term=Decision(law=law, temperature=rollouts.temperature),
        )

    def _in_written_block(self, rollouts: Rollouts, chosen: Bool[Tensor, "k b l"], size: int) -> Bool[Tensor, "k b l"]:
        """Return the columns of the block, of so many, that the chosen ones lie in; none where none are chosen."""
        column = torch.arange(chosen.shape[-1], device=chosen.device)
        block = self.blocks(rollouts.prompt_mask, size).number(column)
        return block == torch.where(chosen, block, -1).amax(-1, keepdim=True)

    def causal_noised(self, rollouts: Rollouts, generator: torch.Generator) -> Views:
        """Return one view at a random level under causal attention, unshifted, scoring what is hidden."""
        level = stratified(rollouts.num_rows, 1, generator).to(rollouts.completion_ids.device)
        hidden = self.random_units(rollouts, level, generator)
        view = self.hide_units(rollouts, hidden, torch.ones_like(level), generator)
        return replace(view, reading=CAUSAL, order=self.natural_order(rollouts))

    def constrained_terms(
        self, logits: Float[Tensor, "b l v"], rollouts: Rollouts, view: Views, constraint: Constraint
    ) -> Float[Tensor, "b l"]:
        """Return log-probabilities of what a step wrote, each token given those left of it, among accepted canvases."""
        trajectory = trajectory_of(rollouts)
        assert view.step is not None
        tokens = view.tokens[0]
        chosen = (trajectory.commit_step == view.step[0][:, None]) | view.score[0]
        # The canvas after the last step, since what stands behind EOS has been padded in the completion.
        targets = rollouts.completion_ids
        if trajectory.keeps_states:
            targets = trajectory.states(trajectory.events.end[None])[0]
        is_masked, end = tokens == self.mask_id, self.unscored_from(rollouts, chosen)
        return joint_terms(constraint, logits, tokens, is_masked, chosen, targets, unscored_from=end)

    def unscored_from(self, rollouts: Rollouts, chosen: Bool[Tensor, "b l"]) -> Int[Tensor, " b"] | None:
        """Return the first column that the step which wrote these positions did not score; None if it scored all."""
        return None

    def intermediate_prediction(
        self,
        before: Int[Tensor, "b l"],
        after: Int[Tensor, "b l"],
        sampled: Int[Tensor, "b l"],
        prompt_mask: Bool[Tensor, "b p"],
    ) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Return the canvas with every reachable MASK filled in; columns out of reach become EOS."""
        is_open = before == self.mask_id
        is_reachable = self.reachable(is_open, prompt_mask)
        is_predicted = is_open & is_reachable
        is_written = is_predicted & (after != before)
        tokens = torch.where(is_written | ~is_predicted, after, sampled)
        return tokens.masked_fill(~is_reachable, self.eos_id), is_predicted

    def warm_start_loss(self, policy: BasePolicy, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the cross-entropy at n ~ U{1..l} hidden positions of each row, stratified over the batch.

        The ELBO without its weight l / n, which would favour nearly finished canvases.
        """
        rows, length = batch.canvas.shape
        quota = 1 + (one_a_stratum(rows, generator) * length).long().clamp(max=length - 1)
        rank = torch.rand(rows, length, generator=generator).argsort(dim=1).argsort(dim=1)
        hidden = rank < quota[:, None]
        return policy.learning_loss(batch, batch.canvas.masked_fill(hidden, self.mask_id), hidden)

    def levels(
        self, num_rows: int, num_draws: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "k b"], Float[Tensor, "k b"]]:
        """Return noise levels in [0, 1) and the density that each was drawn from: uniform and stratified here."""
        level = stratified(num_rows, num_draws, generator)
        return level, torch.ones_like(level)

    def parts(self, rollouts: Rollouts) -> Bool[Tensor, "bj m"]:
        """Return the units part by part, for all rows. Each part has an ELBO of its own; here the canvas is one."""
        return self.units(rollouts)

    def joined(self, rollouts: Rollouts, parts: Shaped[Tensor, "k bj m"]) -> Shaped[Tensor, "k b n"]:
        """Return what stands part by part, as units."""
        return parts

    def reachable(self, is_open: Bool[Tensor, "b l"], prompt_mask: Bool[Tensor, "b p"]) -> Bool[Tensor, "b l"]:
        """Return which columns have a distribution while these are open."""
        return torch.ones_like(is_open)

    def natural_order(self, rollouts: Rollouts) -> Int[Tensor, "1 b l"] | None:
        """Return the feed order that leaves the canvas as it is; None where a canvas has no other."""
        return None

    def feed_order(
        self, is_last: Bool[Tensor, "k b n"], length: int, generator: torch.Generator
    ) -> Int[Tensor, "k b l"] | None:
        """Return a feed order in which these units come last; None where a canvas has but one order."""
        return None


def _random_subset(
    member: Bool[Tensor, "b n"], count: Float[Tensor, "k b"], generator: torch.Generator
) -> Bool[Tensor, "k b n"]:
    """Return a uniform subset of `count` members, for each view and row."""
    keys = torch.rand(count.shape[0], *member.shape, generator=generator, device=generator.device).to(member.device)
    rank = torch.where(member, keys, 2.0).argsort(-1).argsort(-1)
    return rank < count[..., None]


@dataclass(slots=True, kw_only=True)
class StaleCache:
    """Keys and values of [prompt, canvas] outside columns `start` to `end`, as they were in the forward that filled it.

    Attributes:
        start, end: Columns that are fed again in every forward.
        keys: None before the forward that fills the cache, which reads everything and is exact.
    """

    start: int
    end: int
    keys: Any = None

    def rows(self, index: Int[Tensor, " n"]) -> StaleCache:
        """Return a copy with these rows."""
        assert self.keys is not None, "rows are taken from a cache that has been filled"
        return StaleCache(start=self.start, end=self.end, keys=keys_of_rows(self.keys, index))


@register("policy", "masked")
class MaskedPolicy(BasePolicy):
    """Sees the whole canvas; the logits at a MASK are of the token under it (shifted by one for Dream)."""

    family: ClassVar[str] = "masked"
    usual_sampler: ClassVar[str] = "low_confidence"
    own_facts: ClassVar[frozenset[str]] = frozenset({"is_shifted"})
    needs_mask: ClassVar[bool] = True

    def make_process(self) -> MaskedProcess:
        """Return the process in which columns become MASK."""
        return MaskedProcess(**self.masked_facts)

    @property
    def reading(self) -> Reading:
        """Every position reads every other."""
        return Reading(attention=Full(), is_shifted=self.facts.is_shifted)

    def num_fed(self, cache: StaleCache) -> int:
        """Return how many positions a forward with this cache feeds, once it is filled."""
        return cache.end - cache.start + int(self.facts.is_shifted)

    def continue_from(
        self, cache: StaleCache, tokens: Tokens, keep: Int[Tensor, " c"] | Int[Tensor, "b c"], width: int
    ) -> Float[Tensor, "b c v"]:
        """Feed everything and fill an empty cache; with a filled one feed only the columns that it leaves out.

        In a shifted model the logits of a block's first column stand one position earlier, which is fed again, too.
        """
        last = width + cache.end
        first = last - self.num_fed(cache)
        if cache.keys is None:
            output, keys = self._read_all(tokens, keep)
            cache.keys = _without(keys, first, last)
            return output
        assert first <= int(keep.min()) and int(keep.max()) < last, "only the columns that a cache leaves out are fed"
        reads = tokens.mask[:, :, first:last]
        mask = torch.cat([reads[..., :first], reads[..., last:], reads[..., first:last]], dim=-1)
        output = self.forward(tokens.between(first, last, mask=mask), keep - first, cache=cache.keys)
        cache.keys.crop(first - last)
        return output

    def _read_all(
        self, tokens: Tokens, keep: Int[Tensor, " c"] | Int[Tensor, "b c"]
    ) -> tuple[Float[Tensor, "b c v"], Any]:
        """An exact forward, and all its keys and values. Raises ConfigError where the model does not keep them."""
        keys: Any = empty_keys()
        total = tokens.ids.shape[1]
        if self.interface.cache_name is not None and kinds_of_layers(self.model.config) <= ATTENTION:
            output = self.forward(tokens, keep, cache=keys)
            if keys.layers and all(layer.get_seq_length() == total for layer in keys.layers):
                return output, keys
        raise ConfigError(
            f"{self.interface.model_name} does not hand out keys and values of every layer and position, as encoders "
            "and models with recurrent layers do not, so nothing can be kept between steps. Take cache='exact', which "
            "reads everything in every step."
        )


def _without(keys: Any, first: int, last: int) -> DynamicCache:
    """A copy without positions `first` to `last`; what remains is in order."""
    kept = empty_keys()
    for number, layer in enumerate(keys.layers):
        own, values = (torch.cat([x[:, :, :first], x[:, :, last:]], dim=2) for x in (layer.keys, layer.values))
        kept.update(own, values, number)
    return kept
