"""The exact law of a masked-diffusion sampler: the probability of every completion, by dynamic programming over masks.

A sampler reveals q columns a step. A *choose-then-sample* rule picks the columns from the canvas alone and then draws
there; the rule `drawn` draws everywhere and keeps the tokens that were drawn with the highest probability (LLaDA,
2502.09992), so which columns are kept depends on what was drawn. For each set S of revealed columns and each completion
x the tables hold, over all ways to go on from x_S to x: the probability, and the first two moments of the path's
log-probability as a sampler records it, log p(token | canvas) summed over commits.

Legend: n completions, l columns, v letters.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.policies.feed import Feed
from studies.exact.policy import EnumerablePolicy

NUM_TABLES = 5
Choice = tuple[Bool[Tensor, "n l"], Float[Tensor, " n"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All completions with the columns S revealed: their laws log_p (n, l, v), and log p(x_i) of each token (n, l)."""

    is_open: Bool[Tensor, " l"]
    log_p: Float[Tensor, "n l v"]
    token: Float[Tensor, "n l"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """log_prob (n,): exact log-likelihood. path_mean, path_var (n,): of the recorded path log-probability, given x.

    path_change (n,): what the recorded path's log-probability changes by, in the mean over the paths to x, when another
    policy scores the recorded canvases; 0 where none was given.

    Attributes:
        selection_gap: Expected sum of commit entropies less the path's negative log-probability; 0 where what is drawn
            does not decide what is kept.
    """

    log_prob: Float[Tensor, " n"]
    path_mean: Float[Tensor, " n"]
    path_var: Float[Tensor, " n"]
    path_change: Float[Tensor, " n"]
    selection_gap: float


def law(
    policy: EnumerablePolicy,
    rule: Callable[[State, int], Iterator[Choice]],
    *,
    quota: int = 1,
    other: EnumerablePolicy | None = None,
) -> Law:
    """The law of a rule that reveals `quota` columns a step; the length must be a multiple of it.

    Args:
        other: A policy that scores the paths of this one, for `path_change`.
    """
    ids = policy.completions()
    num, length = ids.shape
    # By mask of revealed columns, of what follows: p, p E[c], p E[c^2], p E[entropies + c], p E[change of c].
    zero = torch.zeros(num, dtype=torch.float64)
    tables: dict[int, tuple[Tensor, ...]] = {(1 << length) - 1: (zero + 1.0, zero, zero, zero, zero)}
    bits = 1 << torch.arange(length)
    for size in range(length - quota, -1, -quota):
        for revealed in itertools.combinations(range(length), size):
            state = _state(policy, ids, revealed)
            scored = state if other is None else _state(other, ids, revealed)
            shift = scored.token - state.token
            entropy = -(state.log_p.exp() * state.log_p).sum(-1)
            total = [zero.clone() for _ in range(NUM_TABLES)]
            for chosen, chance in rule(state, quota):
                cost = (state.token * chosen).sum(-1)
                weight = chance * cost.exp()
                gap = ((entropy + state.token) * chosen).sum(-1)
                p, first, second, gaps, changes = _after(
                    tables, sum(1 << i for i in revealed) + (chosen * bits).sum(-1)
                )
                total[0] += weight * p
                total[1] += weight * (cost * p + first)
                total[2] += weight * (cost.square() * p + 2 * cost * first + second)
                total[3] += weight * (gap * p + gaps)
                total[4] += weight * ((shift * chosen).sum(-1) * p + changes)
            tables[sum(1 << i for i in revealed)] = tuple(total)
    p, first, second, gaps, changes = tables[0]
    mean = first / p
    return Law(
        log_prob=p.log(),
        path_mean=mean,
        path_var=second / p - mean.square(),
        path_change=changes / p,
        selection_gap=float(gaps.sum()),
    )


def _state(policy: EnumerablePolicy, ids: Int[Tensor, "n l"], revealed: tuple[int, ...]) -> State:
    is_open = torch.ones(ids.shape[1], dtype=torch.bool)
    is_open[list(revealed)] = False
    canvas = ids.masked_fill(is_open, policy.mask_id or 0)
    rows = policy.rollouts(ids)
    feed = Feed(prompt_ids=rows.prompt_ids, prompt_mask=rows.prompt_mask, canvas=canvas)
    logits = policy.score(feed)[..., : policy.num_letters].double()
    log_p = logits.log_softmax(-1)
    return State(is_open=is_open, log_p=log_p, token=log_p.gather(-1, ids[..., None]).squeeze(-1))


def _after(tables: dict[int, tuple[Tensor, ...]], masks: Int[Tensor, " n"]) -> tuple[Tensor, ...]:
    """Of each completion the entries at its own mask of revealed columns."""
    found = [torch.zeros(len(masks), dtype=torch.float64) for _ in range(NUM_TABLES)]
    for mask in masks.unique().tolist():
        here = masks == mask
        for entry, table in zip(found, tables[mask], strict=True):
            entry[here] = table[here]
    return tuple(found)


def left_to_right(state: State, quota: int) -> Iterator[Choice]:
    """The first open columns."""
    return _ranked(-torch.arange(len(state.is_open)).expand(state.token.shape).double(), state, quota)


def confidence(state: State, quota: int) -> Iterator[Choice]:
    """The columns whose most likely token is most likely, chosen before anything is drawn (choose-then-sample)."""
    return _ranked(state.log_p.amax(-1), state, quota)


def entropy(state: State, quota: int) -> Iterator[Choice]:
    """The columns of least entropy, chosen before anything is drawn."""
    return _ranked((state.log_p.exp() * state.log_p).sum(-1), state, quota)


def margin(state: State, quota: int) -> Iterator[Choice]:
    """The columns whose two most likely tokens are furthest apart, chosen before anything is drawn."""
    top = state.log_p.exp().topk(2, dim=-1).values
    return _ranked(top[..., 0] - top[..., 1], state, quota)


def uniform(state: State, quota: int) -> Iterator[Choice]:
    """Open columns, uniformly at random."""
    sets = list(itertools.combinations(state.is_open.nonzero().squeeze(1).tolist(), quota))
    for columns in sets:
        yield _columns(columns, state), torch.full((len(state.token),), 1 / len(sets), dtype=torch.float64)


def drawn(state: State, quota: int) -> Iterator[Choice]:
    """Draw everywhere and keep the likeliest draws: every other draw must have been less likely."""
    open_columns = state.is_open.nonzero().squeeze(1).tolist()
    for columns in itertools.combinations(open_columns, quota):
        threshold = state.token[:, list(columns)].amin(-1)
        chance = torch.ones(len(state.token), dtype=torch.float64)
        for other in set(open_columns) - set(columns):
            law_there = state.log_p[:, other]
            chance = chance * (law_there.exp() * (law_there < threshold[:, None])).sum(-1)
        yield _columns(columns, state), chance


RULES: dict[str, Callable[[State, int], Iterator[Choice]]] = {
    "left to right": left_to_right,
    "random": uniform,
    "confidence": confidence,
    "entropy": entropy,
    "margin": margin,
    "drawn": drawn,
}


def _ranked(score: Float[Tensor, "n l"], state: State, quota: int) -> Iterator[Choice]:
    ranked = score.masked_fill(~state.is_open, -torch.inf)
    rank = ranked.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    yield rank < quota, torch.ones(len(score), dtype=torch.float64)


def _columns(columns: tuple[int, ...], state: State) -> Bool[Tensor, "n l"]:
    chosen = torch.zeros(len(state.is_open), dtype=torch.bool)
    chosen[list(columns)] = True
    return chosen.expand(state.token.shape)
