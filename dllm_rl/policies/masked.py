"""The masked-diffusion family (MDLM 2406.07524, LLaDA 2502.09992, Dream 2508.15487): bidirectional, MASK to token.

Every position reads every other, so every key and value changes when a token is written. `StaleCache` reuses some all
the same, as the approximate caches of Fast-dLLM (2505.22618) do.

Legend: b rows, n rows taken, c asked columns, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from dllm_rl.errors import ConfigError
from dllm_rl.policies.attention import Full, Reading
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.feed import Tokens
from dllm_rl.policies.interface import keys_of_rows
from dllm_rl.policies.masking import MaskedProcess
from dllm_rl.registry import register

_KINDS_WITH_KEYS = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(slots=True, kw_only=True)
class StaleCache:
    """Keys and values of [prompt, canvas] outside columns `start` to `end`, as they were in the forward that filled it.

    start, end: columns that are fed again in every forward.
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
        keys: Any = DynamicCache()
        total = tokens.ids.shape[1]
        if self.interface.cache_name is not None and _has_keys(self.model):
            output = self.forward(tokens, keep, cache=keys)
            if keys.layers and all(layer.get_seq_length() == total for layer in keys.layers):
                return output, keys
        raise ConfigError(
            f"{self.interface.model_name} does not hand out keys and values of every layer and position, as encoders "
            "and models with recurrent layers do not, so nothing can be kept between steps. Take cache='exact', which "
            "reads everything in every step."
        )


def _has_keys(model: torch.nn.Module) -> bool:
    """Whether the model says of no layer that it is anything but attention over keys."""
    kinds = set(getattr(model.config, "layer_types", None) or ())
    return kinds <= _KINDS_WITH_KEYS


def _without(keys: Any, first: int, last: int) -> DynamicCache:
    """A copy without positions `first` to `last`; what remains is in order."""
    kept = DynamicCache()
    for number, layer in enumerate(keys.layers):
        own, values = (torch.cat([x[:, :, :first], x[:, :, last:]], dim=2) for x in (layer.keys, layer.values))
        kept.update(own, values, number)
    return kept
