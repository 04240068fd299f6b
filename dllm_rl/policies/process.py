"""The forward process of a policy family: how it hides or noises a canvas, and the views that follow from it.

Views are data that new, old and reference scores share. Objectives call the methods of `ForwardProcess` and never ask
which family they are on. Each family has its own class beside its policy, in `dllm_rl.policies`.

Which positions: those of `completion_mask` are *scored*, the sampler's draws, FILL and PAD included, with the tokens
that were drawn there (`Completions.as_drawn`), also where a later EOS hides them. *Editable*, so that they may be
hidden or seen, are these and all others up to the first EOS, such as tokens that a grammar forced. All other columns
are never scored and always hidden, so what they hold has no influence.

*Given* columns stood before anything was drawn (`Prompts.given`): they are never scored and never hidden, so that every
likelihood is one of the rest given them.

Randomness comes from `generator` alone and is drawn on its device.
Legend: b rows, p prompt length, l canvas, n units of the canvas (slots; else columns), k views, s steps, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.policies.attention import CAUSAL_SHIFTED
from dllm_rl.records.canvas import until_first
from dllm_rl.records.trajectory import Trajectory
from dllm_rl.records.types import Rollouts, Views

if TYPE_CHECKING:
    from dllm_rl.training.warmstart import Batch

# The family that every other derives from: what is defined for it is defined for all.
ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardProcess:
    """Base of the families' forward processes.

    Attributes:
        pad_id, eos_id: Ids of PAD and EOS.
        banned_ids: Ids that neither sampler nor noise ever writes.
    """

    # Name of the policy family.
    family: ClassVar[str]
    # Whether the ELBO is the mean over all masks of the units, each hidden part of a size weighing the same.
    is_mean_over_masks: ClassVar[bool] = False

    pad_id: int = 0
    eos_id: int = 0
    banned_ids: tuple[int, ...] = ()

    @property
    def blank_id(self) -> int:
        """What stands on a canvas before anything is written."""
        return self.pad_id

    @property
    def expected_weight(self) -> float:
        """Expected sum over the views of an ELBO of the weights with which a scored position is hidden."""
        return 1.0

    def exact(self, rollouts: Rollouts) -> Views:
        """Return one view: the completion itself, every token given all earlier ones.

        Tokens that a grammar forced have probability 1 under any weights and are in no completion mask.
        """
        return replace(self._clean(rollouts), at_temperature=True, is_replay=True)

    def one_step(self, rollouts: Rollouts, generator: torch.Generator, *, prompt_mask_share: float = 0.0) -> Views:
        """Return one view with the whole canvas hidden (d1, 2504.12216): neither a likelihood nor a bound.

        The exact view where nothing is ever hidden.

        Args:
            prompt_mask_share: Probability that a prompt token is hidden too (.15 in d1); needs a family with a mask
                token.
        """
        raise NotImplementedError

    def elbo(
        self, rollouts: Rollouts, generator: torch.Generator, *, num_draws: int = 2, antithetic: bool = True
    ) -> Views:
        """Return views whose weighted terms sum to an unbiased estimate of the ELBO.

        The exact view where the likelihood is known.

        Args:
            num_draws: Noise levels a row, spread evenly over [0, 1).
            antithetic: Each draw gives two views that hide opposite parts (ESPO, 2512.03759).
        """
        raise NotImplementedError

    def quadrature(self, rollouts: Rollouts, generator: torch.Generator, *, num_nodes: int = 2) -> Views:
        """Return ELBO views at the Gauss-Legendre nodes of the noise level instead of random ones (2510.08554).

        An odd number of nodes takes its middle one as a pair of half the weight. Every scored position has expected
        weight 1.
        """
        raise NotImplementedError

    def strata(self, rollouts: Rollouts, generator: torch.Generator, *, num_strata: int = 4) -> Views:
        """Return views that hide one of `num_strata` random parts of the canvas each (DACA-GRPO, 2605.16342).

        Every scored position is scored once, given all but its own part: neither a likelihood nor a bound, but less
        of a product of marginals than the one-step view. The exact view where nothing is ever hidden.
        """
        hidden = self.random_strata(rollouts, num_strata, generator)
        ones = torch.ones(num_strata, rollouts.num_rows, device=hidden.device)
        return self.hide_units(rollouts, hidden, ones, generator)

    def random_strata(self, rollouts: Rollouts, num_strata: int, generator: torch.Generator) -> Bool[Tensor, "k b n"]:
        """Return a random partition of the units into parts of equal size, or one more."""
        member = self.units(rollouts)
        keys = torch.where(member, self.random_keys(rollouts, 1, generator)[0], 2.0)
        rank = keys.argsort(-1).argsort(-1)
        number = torch.arange(num_strata, device=member.device)[:, None, None]
        return (rank % num_strata == number) & member

    def units(self, rollouts: Rollouts) -> Bool[Tensor, "b n"]:
        """Return which pieces of the canvas may be hidden: those with an editable column."""
        return self.editable(rollouts)

    def random_units(
        self, rollouts: Rollouts, level: Float[Tensor, "k b"], generator: torch.Generator
    ) -> Bool[Tensor, "k b n"]:
        """Return units, each drawn with the probability that `level` gives its view and row."""
        return (self.random_keys(rollouts, len(level), generator) < level[..., None]) & self.units(rollouts)

    def random_keys(self, rollouts: Rollouts, num_views: int, generator: torch.Generator) -> Float[Tensor, "k b n"]:
        """Return a uniform in [0, 1) for every unit of every view."""
        shape, device = self.units(rollouts).shape, rollouts.completion_ids.device
        return torch.rand(num_views, *shape, generator=generator, device=generator.device).to(device)

    def hide_units(
        self,
        rollouts: Rollouts,
        hidden: Bool[Tensor, "k b n"],
        weight: Float[Tensor, "k b"] | Float[Tensor, "k b n"],
        generator: torch.Generator,
    ) -> Views:
        """Return views that hide the given units and score what they hide.

        Args:
            weight: Of every scored term of a view, or of each unit.
        """
        raise self._no_mask("so no part of a canvas can be hidden")

    def hide(
        self, rollouts: Rollouts, hidden: Bool[Tensor, "k b l"], generator: torch.Generator
    ) -> Int[Tensor, "k b l"]:
        """Return the completion with these columns, and all that are not editable, hidden."""
        raise self._no_mask("so nothing can be hidden from it")

    def replay(self, rollouts: Rollouts, generator: torch.Generator, *, num_steps: int | None = None) -> Views:
        """Return recorded denoising steps, each scoring what it committed; the exact view where it holds all steps.

        Args:
            num_steps: Steps K a row, drawn uniformly without replacement from its own S steps, with loss_weight S / K,
                so that the sum over views estimates the sum over all steps. None takes all. Rows with fewer steps use
                all of theirs, and their other views score nothing.
        """
        steps, weight = self.some_steps(rollouts, generator, num_steps=num_steps)
        return self.replay_steps(rollouts, steps, weight)

    def some_steps(
        self, rollouts: Rollouts, generator: torch.Generator, *, num_steps: int | None
    ) -> tuple[Int[Tensor, "k b"], Float[Tensor, "k b"]]:
        """Return steps of each row, drawn as `replay` says, and the weights of their loss terms."""
        own = self.own_steps(rollouts)
        total = own.sum(-1)
        width = int(total.max()) if num_steps is None else min(num_steps, int(total.max()))
        keys = torch.rand(own.shape, generator=generator, device=generator.device).to(own.device)
        steps = torch.where(own, keys, 2.0).argsort(-1)[:, : max(width, 1)]
        is_own = own.gather(1, steps)
        steps = torch.where(is_own, steps, own.shape[1]).sort(-1).values.T
        is_own = steps < own.shape[1]
        weight = is_own * total / is_own.sum(0).clamp(min=1)
        return steps.clamp(max=own.shape[1] - 1), weight

    def replay_steps(
        self, rollouts: Rollouts, steps: Int[Tensor, "k b"], loss_weight: Float[Tensor, "k b"], *, span: int = 1
    ) -> Views:
        """Return the canvases before the given steps, each scoring what steps [s, s + span) committed.

        Where one exact view holds all steps it is returned instead, whatever the steps: none of them saves a forward.

        Args:
            loss_weight: Of a view's loss terms; at 0 it scores nothing.
        """
        recorded = replayable(rollouts)
        commit = recorded.commit_step
        is_used = (loss_weight > 0)[..., None] & rollouts.completion_mask
        score = is_used & (commit >= steps[..., None]) & (commit < steps[..., None] + span)
        return Views(
            tokens=recorded.states(steps),
            score=score,
            weight=score.float(),
            loss_weight=score * loss_weight[..., None].float(),
            step=steps,
            order=recorded.orders(steps),
            at_temperature=True,
            is_replay=True,
        )

    def replay_positions(
        self, rollouts: Rollouts, steps: Int[Tensor, "k b"], loss_weight: Float[Tensor, "k b"]
    ) -> Views:
        """Return replayed steps that also score which positions a step wrote, where the record says how it drew them.

        Where it does not, the positions have no gradient: see `replay_steps`. Raises ConfigError where the policy
        moves probabilities of positions that are not recorded.
        """
        if trajectory_of(rollouts).hides_order:
            raise ConfigError(
                "the positions of these rollouts were drawn with probabilities of the policy's that their sampler does "
                "not record. Sample with soft_threshold (without num_steps), or a rule whose order is not drawn."
            )
        return self.replay_steps(rollouts, steps, loss_weight)

    def own_steps(self, rollouts: Rollouts) -> Bool[Tensor, "b s"]:
        """Return which steps of the trajectory committed a scored token of the row.

        Where a grammar forced everything there was no step; one that committed nothing stands for it.
        """
        recorded = trajectory_of(rollouts)
        is_event = rollouts.completion_mask & (recorded.commit_step >= 0)
        events = torch.zeros(
            rollouts.num_rows, max(1, recorded.num_steps), dtype=torch.long, device=rollouts.completion_ids.device
        )
        return events.scatter_add(1, recorded.commit_step.clamp(min=0), is_event.long()) > 0

    def recorded(self, rollouts: Rollouts, steps: Int[Tensor, "k b"]) -> Views:
        """Return the canvases before the given steps, which score nothing yet: the caller says what."""
        record = rollouts.trajectory
        if record is None or not record.keeps_states:
            raise ConfigError("these rollouts carry no canvases; sample with a sampler that records its trajectory.")
        tokens = record.states(steps)
        return Views(
            tokens=tokens,
            score=torch.zeros_like(tokens, dtype=torch.bool),
            weight=torch.zeros(tokens.shape, device=tokens.device),
            time=None if record.time is None else record.time[steps],
            step=steps,
            order=record.orders(steps),
            at_temperature=True,
        )

    def left_to_right(self, rollouts: Rollouts, generator: torch.Generator, *, num_tokens: int | None = None) -> Views:
        """Return scored tokens, each in a view that hides it and all that follow.

        The exact view where one forward holds all.

        Args:
            num_tokens: Tokens a row, drawn without replacement from its N scored ones, with loss_weight N / num_tokens;
                None takes all, at a forward each.
        """
        raise NotImplementedError

    def causal_clean(self, rollouts: Rollouts) -> Views:
        """Return one clean view under causal attention, read one position to the left: the autoregressive reading."""
        # A scored column may stand behind one that is not editable, which it must not read.
        tokens = torch.where(self.editable(rollouts), rollouts.completion_ids, self.blank_id)
        return replace(self._clean(rollouts), tokens=tokens[None], reading=CAUSAL_SHIFTED)

    def causal_noised(self, rollouts: Rollouts, generator: torch.Generator) -> Views:
        """Return one view at a random level under causal attention, unshifted, scoring what is hidden."""
        raise NotImplementedError

    def editable(self, rollouts: Rollouts) -> Bool[Tensor, "b l"]:
        """Return the columns up to and including the first EOS, and those behind it that are scored."""
        return until_first(rollouts.completion_ids == self.eos_id) | rollouts.completion_mask

    def given(self, rollouts: Rollouts) -> Bool[Tensor, "b l"]:
        """Return the columns that stood before anything was drawn; none where no record says so."""
        if rollouts.trajectory is None:
            return torch.zeros_like(rollouts.completion_mask)
        return rollouts.trajectory.events.is_given()

    def scoring_all(self, rollouts: Rollouts) -> Rollouts:
        """Return the rollouts with every column scored, but for given ones: also those behind EOS, as some losses do.

        Unchanged where a completion has no columns behind its EOS.
        """
        return replace(rollouts, completion_mask=~self.given(rollouts))

    def constrained_terms(
        self, logits: Float[Tensor, "b l v"], rollouts: Rollouts, view: Views, constraint: Constraint
    ) -> Float[Tensor, "b l"]:
        """Return log-probabilities of what a step wrote, each token given those left of it, among accepted canvases.

        Args:
            logits: Of all columns of the view, at the sampler's temperature.
            view: The replay of one step, alone.
        """
        raise NotImplementedError

    def predicting_steps(self, canvases: Int[Tensor, "b s1 l"]) -> Bool[Tensor, "b s"]:
        """Return the steps at which the policy is asked for an intermediate prediction: those that changed the canvas.

        The first step is always one of them.
        """
        is_change = (canvases[:, 1:] != canvases[:, :-1]).any(dim=2)
        return is_change | (torch.arange(is_change.shape[1], device=canvases.device) == 0)

    def intermediate_prediction(
        self,
        before: Int[Tensor, "b l"],
        after: Int[Tensor, "b l"],
        sampled: Int[Tensor, "b l"],
        prompt_mask: Bool[Tensor, "b p"],
    ) -> tuple[Int[Tensor, "b l"], Bool[Tensor, "b l"]]:
        """Return the canvas with all that is open filled in at once, and which of its tokens are predictions.

        Tokens that the step committed stand as the sampler drew them.

        Args:
            before: The canvas before the step.
            after: The canvas after it.
            sampled: A token for every column from the policy's distribution at `before`.
            prompt_mask: False at the padding of the prompts.
        """
        raise ConfigError(f"the {self.family} family has no intermediate predictions: it writes left to right.")

    def warm_start_loss(self, policy: Any, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the supervised loss of the family on demonstrations."""
        raise NotImplementedError

    def _clean(self, rollouts: Rollouts) -> Views:
        score = rollouts.completion_mask[None]
        return Views(tokens=rollouts.completion_ids[None], score=score, weight=score.float())

    def _no_mask(self, consequence: str) -> ConfigError:
        return ConfigError(f"the {self.family} family has no mask token, {consequence}.")


def trajectory_of(rollouts: Rollouts) -> Trajectory:
    """Return the trajectory. Raises ConfigError where there is none."""
    if rollouts.trajectory is None:
        raise ConfigError("these rollouts carry no trajectory; sample with a sampler that records one.")
    return rollouts.trajectory


def replayable(rollouts: Rollouts) -> Trajectory:
    """Return a trajectory whose steps can be scored again. Raises ConfigError where that is not possible."""
    recorded = rollouts.trajectory
    if recorded is None or not recorded.keeps_states:
        raise ConfigError(
            "a trajectory view needs recorded canvases; sample with a sampler that records its trajectory."
        )
    if recorded.is_approximate:
        raise ConfigError(
            "this record is approximate: its sampler masks tokens again (which of its draws stayed depended on them), "
            "draws from stale keys and values (cache 'prefix' or 'dual') or from guided logits. A replay does not "
            "give the probabilities of its draws. Train with another sampler, or an objective that does not replay "
            "trajectories; this sampler may still be used for evaluation."
        )
    return recorded


def stratified(num_rows: int, num_draws: int, generator: torch.Generator) -> Float[Tensor, "k b"]:
    """Return levels in [0, 1), each uniform, spread evenly over the draws of one row: frac(v_b + j / k)."""
    offset = torch.rand(num_rows, generator=generator, device=generator.device)
    return (offset + torch.arange(num_draws, device=generator.device)[:, None] / num_draws) % 1.0


def one_a_stratum(rows: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Return uniforms in [0, 1), one in each of `rows` equal strata, in random order."""
    strata = torch.randperm(rows, generator=generator)
    return (strata + torch.rand(rows, generator=generator)) / rows


def quadrature_nodes(num_nodes: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Return levels on (0, 1) and their weights, as pairs t, 1 - t; the weights sum to 1."""
    position, weight = np.polynomial.legendre.leggauss(num_nodes)
    level, share = (position + 1) / 2, weight / 2
    if num_nodes % 2:
        middle = num_nodes // 2
        share[middle] /= 2
        level, share = np.insert(level, middle, level[middle]), np.insert(share, middle, share[middle])
    order = [index for low in range(len(level) // 2) for index in (low, len(level) - 1 - low)]
    return torch.tensor(level[order], dtype=torch.float32), torch.tensor(share[order], dtype=torch.float32)
