"""Which corrupted copies of a completion are scored, with what weight: data that new, old and reference scores share.

The kinds: the exact likelihood (autoregressive), one fully hidden pass (d1, 2504.12216), the ELBO in its count form
(LLaDA, 2502.09992; antithetic pairs as in ESPO, 2512.03759) or in the generalised-KL form of uniform-source flow
matching, with random noise levels or at the nodes of a quadrature. The replay of recorded denoising steps is in
`dllm_rl.trajectory_views`; what is particular to one method lives in that method's file.

Which positions: columns up to and including the first EOS are *editable*: they can be hidden, and count in the number N
of the count form, FILL tokens included, since the model sees them hidden like any other. Of these, the positions of
`completion_mask` are *scored*. So each scored position has E[sum over views of weight x score] = 1, whatever the share
of FILL. The block family counts, and draws its noise level, within each block: log p is the sum over blocks of
log p(block | earlier blocks), and each has its ELBO (BD3-LM, 2503.09573). Its policy reads the earlier blocks clean.
Columns after the first EOS are never scored and always hidden (noise for the flow family), so what they hold has no
influence.

Randomness comes from `generator` alone and is drawn on its device.
Legend: b rows, p prompt length, l canvas, k views.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.canvas import until_first
from dllm_rl.errors import ConfigError
from dllm_rl.types import Rollouts, Views

if TYPE_CHECKING:
    from dllm_rl.process import ForwardProcess

# Share of clean tokens at which the flow ELBO stops: its weight 1 / (1 - kappa) is unbounded at 1.
MAX_KAPPA = 0.999


def exact(rollouts: Rollouts) -> Views:
    """One view: the completion itself, every token given all earlier ones; the autoregressive likelihood.

    Tokens that a grammar forced have probability 1 under any weights and are in no completion mask.
    """
    score = rollouts.completion_mask
    return Views(kind="exact", tokens=rollouts.completion_ids[None], score=score[None], weight=score[None].float())


def one_step(
    rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator, *, prompt_mask_share: float = 0.0
) -> Views:
    """One view with the whole canvas hidden: a product of marginals, neither a likelihood nor a bound.

    prompt_mask_share: probability that a prompt token is hidden too (.15 in d1); needs a family with a mask token.
    """
    if process.family == "autoregressive":
        return exact(rollouts)
    hidden = torch.ones_like(rollouts.completion_mask)[None]
    view = Views(
        kind="one_step",
        tokens=hide(rollouts, process, hidden, generator),
        score=rollouts.completion_mask[None],
        weight=rollouts.completion_mask[None].float(),
        order=natural_order(rollouts, 1) if process.family == "slot" else None,
    )
    if process.family == "flow":
        view = replace(view, time=torch.zeros(1, rollouts.num_rows, device=view.tokens.device))
    if prompt_mask_share > 0:
        view = replace(view, prompt_tokens=_hide_prompt(rollouts, process, generator, prompt_mask_share))
    return view


def elbo(
    rollouts: Rollouts,
    process: ForwardProcess,
    generator: torch.Generator,
    *,
    num_draws: int = 2,
    antithetic: bool = True,
) -> Views:
    """Views whose weighted terms sum to an unbiased estimate of the ELBO, a lower bound of log p(completion | prompt).

    num_draws: noise levels per row, stratified over [0, 1). antithetic: each draw gives two views, a subset and its
    complement (the flow family: kappa and MAX_KAPPA - kappa), so that a pair scores each masked position once.
    Autoregressive: the exact view. Slot: whole slots are hidden; clean slots are fed first, in random order.
    Block: each block has levels of its own, and a view hides a part of every block.
    """
    if process.family == "autoregressive":
        return exact(rollouts)
    if process.family == "flow":
        return _flow_elbo(rollouts, process, generator, num_draws, antithetic)
    member = _in_blocks(units(rollouts, process), process)
    total = member.sum(-1)
    level = stratified(len(member), num_draws, generator).to(member.device)
    count = (level * (total + 1)).floor().clamp(max=total)
    hidden = _random_subset(member, count, generator)
    if antithetic:
        hidden = torch.stack([hidden, member & ~hidden], dim=1).flatten(0, 1)
        count = torch.stack([count, total - count], dim=1).flatten(0, 1)
    weight = (total + 1) / count.clamp(min=1) / hidden.shape[0]
    num_units = units(rollouts, process).shape[1]
    hidden, weight = (
        part.unflatten(1, (rollouts.num_rows, -1)).flatten(2)[..., :num_units]
        for part in (hidden, weight[..., None].expand_as(hidden))
    )
    return hide_units(rollouts, process, hidden, weight, generator)


def quadrature(rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator, *, num_nodes: int = 2) -> Views:
    """ELBO views at the Gauss-Legendre nodes of the noise level instead of random ones (2510.08554).

    A unit is hidden with probability t, weight w_t / t; the nodes t and 1 - t share one draw, a mask and its
    complement. Given its level the expectation of a view is a polynomial in t of degree N - 1, so the estimate is
    unbiased for completions of N <= 2 num_nodes units, and has a small bias beyond. One pair (two nodes) varies less
    than one pair at a random level from about 12 columns on; several pairs vary more than stratified random ones. Every
    scored position has expected weight 1. Flow: kappa takes the nodes of (0, MAX_KAPPA), with weight
    w MAX_KAPPA / (1 - kappa); its terms depend on the time that the model is told, so nothing is exact there.
    An odd number of nodes takes its middle one as a pair of half the weight. Autoregressive: the exact view.
    """
    if process.family == "autoregressive":
        return exact(rollouts)
    level, share = _nodes(num_nodes)
    num_pairs = len(level) // 2
    if process.family == "flow":
        kappa = (MAX_KAPPA * level)[:, None].expand(-1, rollouts.num_rows)
        weight = (share * MAX_KAPPA / (1 - MAX_KAPPA * level))[:, None].expand_as(kappa)
        return _flow_views(rollouts, process, generator, kappa, weight, is_paired=True)
    member = units(rollouts, process)
    chance = level[::2, None].expand(num_pairs, rollouts.num_rows).to(member.device)
    drawn = random_units(rollouts, process, chance, generator)
    hidden = torch.stack([drawn, member & ~drawn], dim=1).flatten(0, 1)
    weight = (share / level)[:, None].expand(-1, rollouts.num_rows).to(member.device)
    return hide_units(rollouts, process, hidden, weight, generator)


def _nodes(num_nodes: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Levels on (0, 1) and their weights, as pairs t, 1 - t; the weights sum to 1."""
    position, weight = np.polynomial.legendre.leggauss(num_nodes)
    level, share = (position + 1) / 2, weight / 2
    if num_nodes % 2:
        middle = num_nodes // 2
        share[middle] /= 2
        level, share = np.insert(level, middle, level[middle]), np.insert(share, middle, share[middle])
    order = [index for low in range(len(level) // 2) for index in (low, len(level) - 1 - low)]
    return torch.tensor(level[order], dtype=torch.float32), torch.tensor(share[order], dtype=torch.float32)


def hide_units(
    rollouts: Rollouts,
    process: ForwardProcess,
    hidden: Bool[Tensor, "k b n"],
    weight: Float[Tensor, "k b"] | Float[Tensor, "k b n"],
    generator: torch.Generator,
) -> Views:
    """Views of a family with a mask token that hide the given units (see `units`) and score what they hide.

    weight: of every scored term of a view, or of each unit. Slot family: clean slots are fed first, in random
    order, then the others.
    """
    size = _unit_size(process)
    length = rollouts.completion_ids.shape[1]
    columns = hidden.repeat_interleave(size, dim=-1)[..., :length]
    score = columns & rollouts.completion_mask
    of_columns = weight[..., None] if weight.dim() == 2 else weight.repeat_interleave(size, dim=-1)[..., :length]
    is_last = hidden | ~units(rollouts, process)
    return Views(
        kind="elbo",
        tokens=hide(rollouts, process, columns, generator),
        score=score,
        weight=score * of_columns,
        order=_clean_first(is_last, columns, size, generator) if process.family == "slot" else None,
    )


def units(rollouts: Rollouts, process: ForwardProcess) -> Bool[Tensor, "b n"]:
    """Which pieces of the canvas are editable: slots (the last may be shorter), for other families single columns."""
    size = _unit_size(process)
    columns = editable(rollouts, process)
    return torch.nn.functional.pad(columns, (0, -columns.shape[-1] % size)).unflatten(-1, (-1, size)).any(-1)


def random_units(
    rollouts: Rollouts, process: ForwardProcess, level: Float[Tensor, "k b"], generator: torch.Generator
) -> Bool[Tensor, "k b n"]:
    """Editable units, each drawn with the probability that `level` gives its view and row."""
    member = units(rollouts, process)
    keys = torch.rand(len(level), *member.shape, generator=generator, device=generator.device).to(member.device)
    return (keys < level[..., None]) & member


def _flow_elbo(
    rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator, num_draws: int, antithetic: bool
) -> Views:
    """Kappa, the share of clean tokens, is uniform on (0, MAX_KAPPA); a position is clean where its draw is below it.

    The estimate does not depend on the schedule except through the time that the model is told.
    """
    kappa = MAX_KAPPA * stratified(rollouts.num_rows, num_draws, generator).to(rollouts.completion_ids.device)
    if antithetic:
        kappa = torch.stack([kappa, MAX_KAPPA - kappa], dim=1).flatten(0, 1)
    weight = MAX_KAPPA / (1 - kappa) / len(kappa)
    return _flow_views(rollouts, process, generator, kappa, weight, is_paired=antithetic)


def _flow_views(
    rollouts: Rollouts,
    process: ForwardProcess,
    generator: torch.Generator,
    kappa: Float[Tensor, "k b"],
    weight: Float[Tensor, "k b"],
    *,
    is_paired: bool,
) -> Views:
    """Canvases noised to these shares of clean tokens. is_paired: views 2 j and 2 j + 1 share draws, as v and 1 - v."""
    ids = rollouts.completion_ids
    num_draws = len(kappa) // 2 if is_paired else len(kappa)
    uniform = torch.rand(num_draws, *ids.shape, generator=generator, device=generator.device).to(ids.device)
    noise = uniform_noise(rollouts, process, num_draws, generator)
    if is_paired:
        uniform = torch.stack([uniform, 1 - uniform], dim=1).flatten(0, 1)
        noise = noise.repeat_interleave(2, dim=0)
    kappa, weight = kappa.to(ids.device), weight.to(ids.device)
    is_clean = (uniform < kappa[..., None]) & editable(rollouts, process)
    score = rollouts.completion_mask.expand(len(kappa), *ids.shape)
    return Views(
        kind="elbo",
        tokens=torch.where(is_clean, ids, noise),
        score=score,
        weight=score * weight[..., None],
        time=flow_time(kappa, process),
    )


def editable(rollouts: Rollouts, process: ForwardProcess) -> Bool[Tensor, "b l"]:
    """Columns up to and including the first EOS; all of them where there is none."""
    return until_first(rollouts.completion_ids == process.eos_id)


def stratified(num_rows: int, num_draws: int, generator: torch.Generator) -> Float[Tensor, "k b"]:
    """Levels in [0, 1), each uniform, spread evenly over the draws of one row: frac(v_b + j / k)."""
    offset = torch.rand(num_rows, generator=generator, device=generator.device)
    return (offset + torch.arange(num_draws, device=generator.device)[:, None] / num_draws) % 1.0


def natural_order(rollouts: Rollouts, num_views: int) -> Int[Tensor, "k b l"]:
    """Feed order of the slot family that leaves the canvas as it is."""
    ids = rollouts.completion_ids
    return torch.arange(ids.shape[1], device=ids.device).expand(num_views, *ids.shape)


def uniform_noise(
    rollouts: Rollouts, process: ForwardProcess, num_views: int, generator: torch.Generator
) -> Int[Tensor, "k b l"]:
    """Ids drawn uniformly from those that the source may write."""
    allowed = torch.tensor([i for i in range(process.vocab_size) if i not in process.banned_ids])
    shape = (num_views, *rollouts.completion_ids.shape)
    index = torch.randint(len(allowed), shape, generator=generator, device=generator.device)
    return allowed.to(index.device)[index].to(rollouts.completion_ids.device)


def flow_time(kappa: Float[Tensor, "..."], process: ForwardProcess) -> Float[Tensor, "..."]:
    """Time at which the schedule kappa = time ** power has this share of clean tokens."""
    return kappa ** (1 / process.schedule_power)


def hide(
    rollouts: Rollouts, process: ForwardProcess, hidden: Bool[Tensor, "k b l"], generator: torch.Generator
) -> Int[Tensor, "k b l"]:
    """The completion with these columns, and all after EOS, hidden: MASK, or fresh noise for the flow family."""
    hidden = hidden | ~editable(rollouts, process)
    if process.family == "flow":
        return torch.where(hidden, uniform_noise(rollouts, process, len(hidden), generator), rollouts.completion_ids)
    if process.mask_id is None:
        raise ConfigError(f"the {process.family} family has no mask token, so nothing can be hidden from it.")
    return torch.where(hidden, process.mask_id, rollouts.completion_ids)


def _hide_prompt(
    rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator, share: float
) -> Int[Tensor, "1 b p"]:
    if process.mask_id is None:
        raise ConfigError(
            f"prompt_mask_share={share} needs a mask token, and the {process.family} family has none. Set it to 0."
        )
    ids = rollouts.prompt_ids
    # Drawn from the last column to the first, so that padding on the left moves no draw.
    uniform = torch.rand(ids.shape[::-1], generator=generator, device=generator.device).flip(0).T.to(ids.device)
    return torch.where((uniform < share) & rollouts.prompt_mask, process.mask_id, ids)[None]


def _unit_size(process: ForwardProcess) -> int:
    return process.slot_size if process.family == "slot" else 1


def _in_blocks(member: Bool[Tensor, "b n"], process: ForwardProcess) -> Bool[Tensor, "bj m"]:
    """The units block by block, for all rows; families without blocks have one block."""
    if process.family != "block":
        return member
    assert process.block_size is not None
    size = process.block_size
    return torch.nn.functional.pad(member, (0, -member.shape[1] % size)).unflatten(1, (-1, size)).flatten(0, 1)


def _random_subset(
    member: Bool[Tensor, "b n"], count: Float[Tensor, "k b"], generator: torch.Generator
) -> Bool[Tensor, "k b n"]:
    """A uniform subset of `count` members, for each view and row."""
    keys = torch.rand(count.shape[0], *member.shape, generator=generator, device=generator.device).to(member.device)
    rank = torch.where(member, keys, 2.0).argsort(-1).argsort(-1)
    return rank < count[..., None]


def _clean_first(
    hidden: Bool[Tensor, "k b n"], columns: Bool[Tensor, "k b l"], size: int, generator: torch.Generator
) -> Int[Tensor, "k b l"]:
    """Feed order: clean slots in random order, then hidden slots (and what lies after EOS) in natural order."""
    num_units = hidden.shape[-1]
    keys = torch.rand(hidden.shape, generator=generator, device=generator.device).to(hidden.device)
    natural = 1.0 + torch.arange(num_units, device=hidden.device)
    keys = torch.where(hidden, natural, keys)
    return keys.repeat_interleave(size, dim=-1)[..., : columns.shape[-1]].argsort(dim=-1, stable=True)
