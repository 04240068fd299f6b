"""How a token is drawn, what its distribution says before (log-odds, entropy), and how rows share batches.

Noise is counter-based: u = f(seed, row id, canvas position, step, stream), so no draw depends on batch or history.
The mixer is splitmix64's finaliser (Steele, Lea, Flood 2014), in wrapping int64.

Logits are read where they are, on the model's device; what is taken of them comes back on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts, join_completions

TOKEN, JUMP, SOURCE, ORDER, REMASK, WITHIN, COIN, CHOICE = range(8)

_M1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_M2 = 0x94D049BB133111EB - (1 << 64)
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _M1
    z = (z ^ _shift_right(z, 27)) * _M2
    return z ^ _shift_right(z, 31)


def uniform(
    seed: int, row_ids: Int[Tensor, " b"], positions: Int[Tensor, " c"], step: int | Tensor, stream: int
) -> Float[Tensor, "b c"]:
    """Float64 uniforms in (0, 1), one per (row id, position); step is a number or one per row."""
    steps = torch.as_tensor(step, dtype=torch.long).reshape(-1, 1)
    return _keyed(seed, row_ids.reshape(-1, 1), positions.reshape(1, -1), steps, torch.tensor([[stream]]))


def uniform_at(
    seed: int, row_ids: Int[Tensor, " n"], positions: Int[Tensor, " n"], step: int | Tensor, stream: int
) -> Float[Tensor, " n"]:
    """The same uniforms at chosen places only: one per pair of row id and position; step is one or one per pair."""
    steps = torch.as_tensor(step, dtype=torch.long).reshape(-1)
    return _keyed(seed, row_ids, positions, steps, torch.tensor([stream]))


def _keyed(seed: int, *parts: Tensor) -> Tensor:
    z = torch.full((1,), seed, dtype=torch.long)
    for part in parts:
        z = _mix((z ^ part) + _STEP)
    return (_shift_right(z, 11).double() + 0.5) / float(1 << 53)


def log_odds(logits: Float[Tensor, "b c v"]) -> Float[Tensor, "b c"]:
    """Log-odds of the most likely token: its logit minus the logsumexp of all others.

    Ranks where softmax probabilities in float32 saturate to ties (2409.02908); sigmoid of it is the probability.
    """
    top, index = logits.max(dim=-1, keepdim=True)
    others = logits.scatter(-1, index, -torch.inf).logsumexp(dim=-1)
    return (top.squeeze(-1) - others).cpu()


def entropy(logits: Float[Tensor, "b c v"], temperature: float = 1.0) -> Float[Tensor, "b c"]:
    """Entropy in nats of what `pick` draws from; ids at -inf contribute nothing."""
    scaled = logits if temperature in (0.0, 1.0) else logits / temperature
    log_p = scaled.log_softmax(dim=-1)
    # In place: a vocabulary is wide, and at every written position its copies are most of what the record costs.
    terms = log_p.exp().mul_(log_p.clamp_(min=-1e4))
    return terms.sum(dim=-1).neg_().cpu()


def pick(
    logits: Float[Tensor, "b c v"], temperature: float, noise: Float[Tensor, "b c"]
) -> tuple[Int[Tensor, "b c"], Float[Tensor, "b c"]]:
    """Draw one token a position by inverse CDF in float64 (temperature 0: argmax) and its behaviour log-probability.

    At temperature 0 the log-probability is that of the untempered distribution: the choice itself has none.
    """
    if temperature == 0:
        tokens = logits.argmax(dim=-1)
        scaled = logits
    else:
        scaled = logits / temperature
        cumulative = scaled.double().softmax(dim=-1).cumsum(dim=-1)
        level = noise.to(cumulative.device) * cumulative[..., -1]
        tokens = torch.searchsorted(cumulative, level[..., None], right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    log_probs = scaled.gather(-1, tokens[..., None]).squeeze(-1) - scaled.logsumexp(dim=-1)
    return tokens.cpu(), log_probs.cpu()


# Tokens of a batch that keep a layer's activations in a CPU's cache. An accelerator is faster with large batches, which
# the logits of a step bound there.
TOKENS_ON_CPU, LOGITS_ON_ACCELERATOR = 2048, 2**28


def rows_at_once(device: torch.device, width: int, num_logits: int) -> int:
    """Return how many rows are written in one batch.

    Args:
        width: Positions of a row.
        num_logits: Logits of a row in a step, at most.
    """
    limit, size = (TOKENS_ON_CPU, width) if device.type == "cpu" else (LOGITS_ON_ACCELERATOR, num_logits)
    return max(1, limit // size)


def in_chunks(policy: BasePolicy, prompts: Prompts, write: Callable[[Prompts], Completions]) -> Completions:
    """Apply `write` to chunks of the rows and put its records together in the order of the rows.

    Rows of like length share a chunk, so that padding and idle rows cost little. It changes nothing but speed. Rows of
    other alignment (`BasePolicy.alignment`) never do.
    """
    lengths = prompts.mask.sum(dim=1)
    columns = policy.facts.canvas_length
    size = rows_at_once(policy.device, int(lengths.max()) + columns, columns * policy.vocab_size)
    index = lengths.argsort(stable=True)
    group = policy.alignment(prompts)[index]
    index = index[group.argsort(stable=True)]
    alike = index.split(group.unique(return_counts=True)[1].tolist())
    parts = [write(_trimmed(prompts.rows(rows))) for some in alike for rows in some.split(size)]
    is_in_order = len(parts) == 1 and torch.equal(index, index.sort().values)
    return parts[0] if is_in_order else join_completions(parts, index.argsort())


def refuse_given(prompts: Prompts, sampler: str) -> None:
    """Raise ConfigError where tokens stand on canvases that this sampler begins empty."""
    if prompts.given is not None:
        raise ConfigError(
            f"the prompts give tokens that stand before anything is drawn (`Prompts.given`, as repair does), and "
            f"sampler '{sampler}' begins with an empty canvas. Leave them out, or take a policy of the masked or the "
            "block family."
        )


def _trimmed(prompts: Prompts) -> Prompts:
    """Without the columns that are padding in every row."""
    longest = int(prompts.mask.sum(dim=1).max())
    return replace(prompts, ids=prompts.ids[:, -longest:], mask=prompts.mask[:, -longest:])
