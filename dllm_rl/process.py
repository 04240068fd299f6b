"""The forward process of a policy family: how it hides or noises a canvas, and the views that follow from it.

Objectives call these methods and never ask which family they are on.
Legend: b rows, p prompt length, l canvas, n units of the canvas (slots; else columns), k views, s steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl import trajectory_views, views
from dllm_rl.errors import ConfigError
from dllm_rl.types import Family, Rollouts, Views

# Time at which the flow family is told that (almost) nothing is noise.
CLEAN_TIME = 1 - 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardProcess:
    """The facts of a family's forward process, and the views that are drawn from them.

    family: name of the policy family.
    mask_id: id of MASK; None for the autoregressive and the uniform-source flow family.
    pad_id, eos_id: ids of PAD and EOS.
    vocab_size: ids of a uniform source.
    slot_size: tokens of a slot.
    block_size: tokens of a block; None where the canvas is one block.
    schedule_power: kappa_t = t ** power (flow).
    banned_ids: ids that neither sampler nor noise ever writes.
    """

    family: Family
    mask_id: int | None = None
    pad_id: int = 0
    eos_id: int = 0
    vocab_size: int = 0
    slot_size: int = 1
    block_size: int | None = None
    schedule_power: float = 1.0
    banned_ids: tuple[int, ...] = ()

    def exact(self, rollouts: Rollouts) -> Views:
        """One view: the completion itself, every token given all earlier ones."""
        return views.exact(rollouts)

    def one_step(self, rollouts: Rollouts, generator: torch.Generator, *, prompt_mask_share: float = 0.0) -> Views:
        """One view with the whole canvas hidden; the exact view where nothing is ever hidden.

        prompt_mask_share: probability that a prompt token is hidden too; needs a family with a mask token.
        """
        return views.one_step(rollouts, self, generator, prompt_mask_share=prompt_mask_share)

    def elbo(
        self, rollouts: Rollouts, generator: torch.Generator, *, num_draws: int = 2, antithetic: bool = True
    ) -> Views:
        """Views whose weighted terms sum to an unbiased estimate of the ELBO; the exact view where that is known.

        num_draws: noise levels a row, spread evenly over [0, 1).
        antithetic: each draw gives two views, a subset and its complement.
        """
        return views.elbo(rollouts, self, generator, num_draws=num_draws, antithetic=antithetic)

    def quadrature(self, rollouts: Rollouts, generator: torch.Generator, *, num_nodes: int = 2) -> Views:
        """ELBO views at the Gauss-Legendre nodes of the noise level instead of random ones (2510.08554)."""
        return views.quadrature(rollouts, self, generator, num_nodes=num_nodes)

    def units(self, rollouts: Rollouts) -> Bool[Tensor, "b n"]:
        """Pieces of the canvas that may be hidden: up to and including the first EOS."""
        return views.units(rollouts, self)

    def random_units(
        self, rollouts: Rollouts, level: Float[Tensor, "k b"], generator: torch.Generator
    ) -> Bool[Tensor, "k b n"]:
        """Units, each drawn with the probability that `level` gives its view and row."""
        return views.random_units(rollouts, self, level, generator)

    def hide_units(
        self,
        rollouts: Rollouts,
        hidden: Bool[Tensor, "k b n"],
        weight: Float[Tensor, "k b"] | Float[Tensor, "k b n"],
        generator: torch.Generator,
    ) -> Views:
        """Views that hide the given units and score what they hide. weight: of each term of a view, or of a unit."""
        return views.hide_units(rollouts, self, hidden, weight, generator)

    def replay(self, rollouts: Rollouts, generator: torch.Generator, *, num_steps: int | None = None) -> Views:
        """Recorded denoising steps, each scoring what it committed; the exact view where it holds all steps.

        num_steps: steps a row, drawn uniformly without replacement from its own S steps and weighted S / num_steps;
            None takes all.
        """
        return trajectory_views.trajectory(rollouts, self, generator, num_steps=num_steps)

    def replay_steps(
        self, rollouts: Rollouts, steps: Int[Tensor, "k b"], loss_weight: Float[Tensor, "k b"], *, span: int = 1
    ) -> Views:
        """The canvases before the given steps, each scoring what steps [s, s + span) committed.

        Where one exact view holds all steps it is returned instead, whatever the steps: none of them saves a forward.
        loss_weight: of a view's loss terms; at 0 it scores nothing.
        """
        if self.family == "autoregressive":
            return views.exact(rollouts)
        return trajectory_views.replay(rollouts, self, steps, loss_weight, span)

    def own_steps(self, rollouts: Rollouts) -> Bool[Tensor, "b s"]:
        """Which steps of the trajectory committed a scored token of the row."""
        return trajectory_views.own_steps(rollouts, self)

    def recorded(self, rollouts: Rollouts, steps: Int[Tensor, "k b"]) -> Views:
        """The canvases before the given steps, which score nothing yet: the caller says what, with which targets."""
        record = rollouts.trajectory
        if record is None or not record.keeps_states:
            raise ConfigError("these rollouts carry no canvases; sample with a sampler that records its trajectory.")
        tokens = record.states(steps)
        return Views(
            kind="answer",
            tokens=tokens,
            score=torch.zeros_like(tokens, dtype=torch.bool),
            weight=torch.zeros(tokens.shape, device=tokens.device),
            time=None if record.time is None else record.time[steps],
            step=steps,
            order=record.orders(steps),
        )

    def left_to_right(self, rollouts: Rollouts, generator: torch.Generator, *, num_tokens: int | None = None) -> Views:
        """Scored tokens, each in a view that hides it and all that follow; the exact view where one forward holds all.

        num_tokens: tokens a row, drawn without replacement from its N scored ones, with loss_weight N / num_tokens;
            None takes all, at a forward each.
        """
        if self.family == "autoregressive":
            return views.exact(rollouts)
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
            kind="left_to_right",
            tokens=views.hide(rollouts, self, column >= chosen[..., None], generator),
            score=score,
            weight=score.float(),
            loss_weight=score * share[:, None],
        )

    def causal_clean(self, rollouts: Rollouts) -> Views:
        """One clean view under causal attention, read one position to the left: the autoregressive reading."""
        view = views.exact(rollouts)
        if self.family == "autoregressive":
            return view
        view = replace(view, kind="causal_shifted", read="causal_shifted")
        if self.family == "flow":
            time = torch.full((1, rollouts.num_rows), CLEAN_TIME, device=view.tokens.device)
            view = replace(view, time=views.flow_time(time, self))
        return view

    def causal_noised(self, rollouts: Rollouts, generator: torch.Generator) -> Views:
        """One view at a random level under causal attention, unshifted, scoring what is hidden (flow: everything)."""
        if self.family == "autoregressive":
            return views.exact(rollouts)
        level = views.stratified(rollouts.num_rows, 1, generator).to(rollouts.completion_ids.device)
        if self.family == "flow":
            view = self._noised(rollouts, views.MAX_KAPPA * level, generator)
        else:
            hidden = self.random_units(rollouts, level, generator)
            view = self.hide_units(rollouts, hidden, torch.ones_like(level), generator)
            if self.family == "slot":
                view = replace(view, order=views.natural_order(rollouts, 1))
        return replace(view, kind="causal_noised", read="causal")

    def _noised(self, rollouts: Rollouts, kappa: Float[Tensor, "1 b"], generator: torch.Generator) -> Views:
        ids = rollouts.completion_ids
        uniform = torch.rand(1, *ids.shape, generator=generator, device=generator.device).to(ids.device)
        is_clean = (uniform < kappa[..., None]) & views.editable(rollouts, self)
        tokens = torch.where(is_clean, ids, views.uniform_noise(rollouts, self, 1, generator))
        return replace(views.exact(rollouts), tokens=tokens, time=views.flow_time(kappa, self))
