"""The discrete-flow family with a uniform source (2402.04997, 2407.15595; FS-DFM 2509.20624): noise to token over time.

kappa_t = t ** power is the share of clean tokens at time t. The model predicts the clean token at every position.

Legend: b rows, l canvas, k views, n scored positions of all rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.likelihood.terms import LogProbs, joint_terms, target_log_probs
from dllm_rl.policies.attention import CAUSAL, CAUSAL_SHIFTED, Full, Reading
from dllm_rl.policies.base import BasePolicy
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
    from dllm_rl.training.warmstart import Batch

# Share of clean tokens at which the ELBO stops: its weight 1 / (1 - kappa) is unbounded at 1.
MAX_KAPPA = 0.999
# Time at which the model is told that (almost) nothing is noise.
CLEAN_TIME = 1 - 1e-4


@dataclass(frozen=True, slots=True)
class GeneralisedKL:
    """(1 - e) log p(x_1) + p(x_t) - e with e = [x_t = x_1], never positive (uniform source)."""

    is_log_prob: ClassVar[bool] = False

    def __call__(
        self, log_probs: LogProbs, targets: Int[Tensor, " n"], view: Views, place: tuple[Tensor, Tensor]
    ) -> Float[Tensor, " n"]:
        """Return the terms whose weighted sum is the ELBO."""
        seen = view.tokens[0][place]
        log_p, p_seen = log_probs(targets), log_probs(seen).exp()
        return torch.where(seen == targets, p_seen - 1.0, log_p + p_seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowProcess(ForwardProcess):
    """A position is clean with probability kappa, else a token drawn uniformly from the source.

    Attributes:
        source: Ids that the source may write.
        schedule_power: Power of the schedule.
    """

    family: ClassVar[str] = "flow"

    source: tuple[int, ...]
    schedule_power: float = 1.0

    @property
    def expected_weight(self) -> float:
        """The share of noise, less what the source draws of the clean token itself."""
        return MAX_KAPPA * (1 - 1 / len(self.source))

    def one_step(self, rollouts: Rollouts, generator: torch.Generator, *, prompt_mask_share: float = 0.0) -> Views:
        """Return one view with noise everywhere, at time 0."""
        hidden = torch.ones_like(rollouts.completion_mask)[None]
        tokens = self.hide(rollouts, hidden, generator)
        if prompt_mask_share > 0:
            raise self._no_mask(f"so prompt_mask_share={prompt_mask_share} can hide nothing of a prompt. Set it to 0")
        time = torch.zeros(1, rollouts.num_rows, device=tokens.device)
        return replace(self._clean(rollouts), tokens=tokens, time=time)

    def elbo(
        self, rollouts: Rollouts, generator: torch.Generator, *, num_draws: int = 2, antithetic: bool = True
    ) -> Views:
        """Return views at kappa uniform on (0, MAX_KAPPA); a pair takes kappa and MAX_KAPPA - kappa.

        The estimate does not depend on the schedule except through the time that the model is told.
        """
        kappa = MAX_KAPPA * stratified(rollouts.num_rows, num_draws, generator).to(rollouts.completion_ids.device)
        if antithetic:
            kappa = torch.stack([kappa, MAX_KAPPA - kappa], dim=1).flatten(0, 1)
        weight = MAX_KAPPA / (1 - kappa) / len(kappa)
        return self._elbo_views(rollouts, generator, kappa, weight, is_paired=antithetic)

    def quadrature(self, rollouts: Rollouts, generator: torch.Generator, *, num_nodes: int = 2) -> Views:
        """Return views at the nodes of (0, MAX_KAPPA), with weight w MAX_KAPPA / (1 - kappa).

        The terms depend on the time that the model is told, so nothing is exact here.
        """
        level, share = quadrature_nodes(num_nodes)
        kappa = (MAX_KAPPA * level)[:, None].expand(-1, rollouts.num_rows)
        weight = (share * MAX_KAPPA / (1 - MAX_KAPPA * level))[:, None].expand_as(kappa)
        return self._elbo_views(rollouts, generator, kappa, weight, is_paired=True)

    def strata(self, rollouts: Rollouts, generator: torch.Generator, *, num_strata: int = 4) -> Views:
        """Return views in which one part each is noise, at the time of the share that is clean."""
        hidden = self.random_strata(rollouts, num_strata, generator)
        score = hidden & rollouts.completion_mask
        kappa = torch.full((num_strata, rollouts.num_rows), 1 - 1 / num_strata, device=hidden.device)
        return Views(
            tokens=self.hide(rollouts, hidden, generator),
            score=score,
            weight=score.float(),
            time=self.time_of(kappa),
        )

    def hide(
        self, rollouts: Rollouts, hidden: Bool[Tensor, "k b l"], generator: torch.Generator
    ) -> Int[Tensor, "k b l"]:
        """Return the completion with fresh noise at these columns, and at all that are not editable."""
        hidden = hidden | ~self.editable(rollouts)
        return torch.where(hidden, self._noise(rollouts, len(hidden), generator), rollouts.completion_ids)

    def replay_steps(
        self, rollouts: Rollouts, steps: Int[Tensor, "k b"], loss_weight: Float[Tensor, "k b"], *, span: int = 1
    ) -> Views:
        """Return the canvases before the given steps, each scoring the transition of every position."""
        recorded = replayable(rollouts)
        assert recorded.time is not None and recorded.transition is not None
        if span > 1:
            raise ConfigError(
                f"span={span}: transitions of the {self.family} family do not merge. Replay single steps."
            )
        score = (loss_weight > 0)[..., None] & rollouts.completion_mask
        time = recorded.time.to(steps.device)
        return Views(
            tokens=recorded.states(steps),
            targets=recorded.states(steps + 1),
            score=score,
            weight=score.float(),
            loss_weight=score * loss_weight[..., None].float(),
            time=time[steps],
            time_next=time[steps + 1],
            step=steps,
            term=recorded.transition,
            at_temperature=True,
            is_replay=True,
        )

    def own_steps(self, rollouts: Rollouts) -> Bool[Tensor, "b s"]:
        """Return all steps: each has a transition of every position."""
        shape = (rollouts.num_rows, max(1, trajectory_of(rollouts).num_steps))
        return torch.ones(shape, dtype=torch.bool, device=rollouts.completion_ids.device)

    def causal_clean(self, rollouts: Rollouts) -> Views:
        """Return one clean view under causal attention, read one position to the left, at nearly the last time."""
        time = torch.full((1, rollouts.num_rows), CLEAN_TIME, device=rollouts.completion_ids.device)
        return replace(self._clean(rollouts), reading=CAUSAL_SHIFTED, time=self.time_of(time))

    def causal_noised(self, rollouts: Rollouts, generator: torch.Generator) -> Views:
        """Return one view at a random level under causal attention, unshifted, scoring every position."""
        ids = rollouts.completion_ids
        kappa = MAX_KAPPA * stratified(rollouts.num_rows, 1, generator).to(ids.device)
        uniform = torch.rand(1, *ids.shape, generator=generator, device=generator.device).to(ids.device)
        is_clean = (uniform < kappa[..., None]) & self.editable(rollouts)
        tokens = torch.where(is_clean, ids, self._noise(rollouts, 1, generator))
        return replace(self._clean(rollouts), tokens=tokens, time=self.time_of(kappa), reading=CAUSAL)

    def time_of(self, kappa: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the time at which the schedule has this share of clean tokens."""
        return kappa ** (1 / self.schedule_power)

    def constrained_terms(
        self, logits: Float[Tensor, "b l v"], rollouts: Rollouts, view: Views, constraint: Constraint
    ) -> Float[Tensor, "b l"]:
        """Return plain transitions, but for the last step, which draws the whole canvas from the accepted ones."""
        assert view.time_next is not None and view.targets is not None
        targets = view.targets[0]
        everywhere = torch.ones_like(targets, dtype=torch.bool)
        row, column = everywhere.nonzero(as_tuple=True)
        log_probs = functools.partial(target_log_probs, logits.flatten(0, 1))
        plain = view.term(log_probs, targets.flatten(), view, (row, column)).view_as(targets)
        is_last = view.time_next[0] >= 1.0
        if not is_last.any():
            return plain
        joint = joint_terms(constraint, logits, targets, everywhere, everywhere, targets)
        return torch.where(is_last[:, None], joint.float(), plain)

    def predicting_steps(self, canvases: Int[Tensor, "b s1 l"]) -> Bool[Tensor, "b s"]:
        """Return all steps."""
        return torch.ones(len(canvases), canvases.shape[1] - 1, dtype=torch.bool, device=canvases.device)

    def intermediate_prediction(
        self,
        before: Int[Tensor, "b l"],
        after: Int[Tensor, "b l"],
        sampled: Int[Tensor, "b l"],
        prompt_mask: Bool[Tensor, "b p"],
    ) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Return the sampled tokens; those that differ from the canvas are predictions."""
        return sampled, sampled != before

    def warm_start_loss(self, policy: BasePolicy, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the cross-entropy of the clean token at every position, noised at time t ~ U(0, 1) (2407.15595)."""
        rows, length = batch.canvas.shape
        time = one_a_stratum(rows, generator)
        is_clean = torch.rand(rows, length, generator=generator) < (time**self.schedule_power)[:, None]
        source = torch.tensor(self.source)
        noise = source[torch.randint(0, len(source), (rows, length), generator=generator)]
        every = torch.ones_like(is_clean)
        return policy.learning_loss(batch, torch.where(is_clean, batch.canvas, noise), every, time=time)

    def _elbo_views(
        self,
        rollouts: Rollouts,
        generator: torch.Generator,
        kappa: Float[Tensor, "k b"],
        weight: Float[Tensor, "k b"],
        *,
        is_paired: bool,
    ) -> Views:
        """Canvases with these shares of clean tokens.

        Args:
            is_paired: Views 2 j and 2 j + 1 share draws, as v and 1 - v.
        """
        ids = rollouts.completion_ids
        num_draws = len(kappa) // 2 if is_paired else len(kappa)
        uniform = torch.rand(num_draws, *ids.shape, generator=generator, device=generator.device).to(ids.device)
        noise = self._noise(rollouts, num_draws, generator)
        if is_paired:
            uniform = torch.stack([uniform, 1 - uniform], dim=1).flatten(0, 1)
            noise = noise.repeat_interleave(2, dim=0)
        kappa, weight = kappa.to(ids.device), weight.to(ids.device)
        is_clean = (uniform < kappa[..., None]) & self.editable(rollouts)
        score = rollouts.completion_mask.expand(len(kappa), *ids.shape)
        return Views(
            tokens=torch.where(is_clean, ids, noise),
            score=score,
            weight=score * weight[..., None],
            time=self.time_of(kappa),
            term=GeneralisedKL(),
        )

    def _noise(self, rollouts: Rollouts, num_views: int, generator: torch.Generator) -> Int[Tensor, "k b l"]:
        """Ids drawn uniformly from the source."""
        source, shape = torch.tensor(self.source), (num_views, *rollouts.completion_ids.shape)
        index = torch.randint(len(source), shape, generator=generator, device=generator.device)
        return source.to(index.device)[index].to(rollouts.completion_ids.device)


@register("policy", "flow")
class FlowPolicy(BasePolicy):
    """Bidirectional and told the time; its likelihood terms are of the flow's own forward process."""

    family: ClassVar[str] = "flow"
    usual_sampler: ClassVar[str] = "flow_exact"
    own_facts: ClassVar[frozenset[str]] = frozenset({"schedule_power", "is_shifted"})
    reads_time: ClassVar[bool] = True

    def make_process(self) -> FlowProcess:
        """Return the process in which positions become noise."""
        return FlowProcess(
            pad_id=self.canvas.pad_id,
            eos_id=self.canvas.eos_id,
            banned_ids=self.banned_ids,
            source=self.source,
            schedule_power=self.facts.schedule_power,
        )

    @property
    def source(self) -> tuple[int, ...]:
        """Ids that noise is drawn from."""
        return tuple(sorted(set(range(self.vocab_size)) - set(self.banned_ids)))

    @property
    def reading(self) -> Reading:
        """Every position reads every other."""
        return Reading(attention=Full(), is_shifted=self.facts.is_shifted)
