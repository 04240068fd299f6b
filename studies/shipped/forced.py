"""How likely a sampler is to write a text: it runs with the text's tokens told, and their probabilities multiply.

The samplers here choose positions from the canvas and draw tokens there afterwards (choose-then-sample). So the
probability of a text is the mean, over a sampler's own choices on canvases that hold the text's tokens, of the product
of the tokens' probabilities: importance sampling with the sampler itself as proposal, without bias. Columns behind the
text's EOS are drawn as ever. A sampler without noise of its own on a text that fills its canvas has one path, and one
is exact.

Legend: b texts, m paths of each, l canvas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Prompts
from samplers.grammar.projection import Draw, Keys, Unconstrained

# Families whose samplers draw tokens through `Unconstrained.draw`.
FAMILIES = ("masked", "block", "slot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """Of texts, estimated from m paths each.

    Attributes:
        log_prob: Log of the mean probability.
        weights: of each path, log.
        error: Standard error of log_prob, by the delta method.
        effective: Number of equally likely paths that would tell as much: (sum of weights)^2 / sum of their squares.
    """

    log_prob: Float[Tensor, " b"]
    weights: Float[Tensor, "m b"]

    @classmethod
    def of(cls, weights: Float[Tensor, "m b"]) -> Likelihood:
        """From the log-probabilities of the paths."""
        return cls(log_prob=weights.logsumexp(0) - math.log(len(weights)), weights=weights)

    @property
    def error(self) -> Float[Tensor, " b"]:
        """Standard deviation of the weights over their mean, over the root of their number; 0 for one path."""
        if len(self.weights) == 1:
            return torch.zeros_like(self.log_prob)
        share = (self.weights - self.log_prob).exp()
        return share.std(0) / len(self.weights) ** 0.5

    @property
    def effective(self) -> Float[Tensor, " b"]:
        """From 1, where one path outweighs all others, to their number."""
        return 1 / self.weights.softmax(0).square().sum(0)


def likelihood(
    policy: BasePolicy, sampler: Any, prompts: Prompts, text: Int[Tensor, "b l"], *, num_paths: int, seed: int
) -> Likelihood:
    """The likelihood of texts (closed at their EOS) under a sampler; equal seeds draw equal noise.

    Raises ConfigError for samplers that write otherwise, write twice, or draw one token from what others may become.
    """
    _check(sampler)
    num = len(text)
    many = prompts.rows(torch.arange(num).repeat(num_paths))
    many = replace(many, row_ids=torch.arange(len(many.ids)))
    told = _Told(text.repeat(num_paths, 1), policy.canvas.until_eos(text).repeat(num_paths, 1))
    with mock.patch.object(Unconstrained, "draw", told.draw):
        sampler.generate(policy, many, seed=seed)
    return Likelihood.of(told.total.view(num_paths, num))


def _check(sampler: Any) -> None:
    if not set(sampler.families) & set(FAMILIES) or sampler.approximation is not None or sampler.grammar:
        raise ConfigError(
            f"sampler '{sampler.name}' was given; expected is one of the families {', '.join(FAMILIES)} without "
            "remasking, stale caches, guidance and grammar, whose draws can be told. Take another."
        )


class _Told:
    """Stands in for the draw of a step: the texts' tokens up to their EOS, and the sum of their log-probabilities."""

    def __init__(self, text: Int[Tensor, "r l"], is_told: Bool[Tensor, "r l"]) -> None:
        self.text, self.is_told = text, is_told
        self.total = torch.zeros(len(text), dtype=torch.float64)

    @property
    def draw(self) -> Any:
        """In the place of the method of `Unconstrained`."""
        free = Unconstrained.draw

        def tell(distribution: Unconstrained, chosen: Bool[Tensor, "n c"], keys: Keys) -> Draw:
            drawn = free(distribution, chosen, keys)
            at = keys.row_ids[drawn.row]
            is_told = self.is_told[at, drawn.column]
            tokens = torch.where(is_told, self.text[at, drawn.column], drawn.tokens)
            log_p = (distribution.logits[chosen] / distribution.temperature).double().log_softmax(-1)
            log_p = log_p.gather(1, tokens[:, None]).squeeze(1)
            self.total.index_add_(0, at[is_told], log_p[is_told])
            return replace(drawn, tokens=tokens, log_probs=log_p.float())

        return tell
