"""What a distribution says before anything is drawn: log-odds, entropy; and the one way a token is drawn from it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def log_odds(logits: Float[Tensor, "b c v"]) -> Float[Tensor, "b c"]:
    """Log-odds of the most likely token: its logit minus the logsumexp of all others.

    Ranks where softmax probabilities in float32 saturate to ties (2409.02908); sigmoid of it is the probability.
    """
    top, index = logits.max(dim=-1, keepdim=True)
    others = logits.scatter(-1, index, -torch.inf).logsumexp(dim=-1)
    return top.squeeze(-1) - others


def entropy(logits: Float[Tensor, "b c v"], temperature: float) -> Float[Tensor, "b c"]:
    """Entropy in nats of what `pick` draws from; ids at -inf contribute nothing."""
    log_p = (logits / (temperature or 1.0)).log_softmax(dim=-1)
    return -(log_p.exp() * log_p.clamp(min=-1e4)).sum(dim=-1)


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
        tokens = torch.searchsorted(cumulative, (noise * cumulative[..., -1])[..., None], right=True).squeeze(-1)
        tokens = tokens.clamp(max=logits.shape[-1] - 1)
    log_probs = scaled.gather(-1, tokens[..., None]).squeeze(-1) - scaled.logsumexp(dim=-1)
    return tokens, log_probs
