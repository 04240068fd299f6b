"""The masked-diffusion family (MDLM 2406.07524, LLaDA 2502.09992, Dream 2508.15487): bidirectional, MASK to token.

Every position reads every other, so no key or value stays what it was when a token is written. `StaleCache` keeps some
all the same: the approximate caches of Fast-dLLM (2505.22618).

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
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.head import without_adapter
from dllm_rl.policies.terms import Attention, keys_of_rows, last_ids
from dllm_rl.registry import register
from dllm_rl.types import Family

_KINDS_WITH_KEYS = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(slots=True, kw_only=True)
class StaleCache:
    """Keys and values of [prompt, canvas] outside columns `start` to `end`, as they were in the forward that filled it.

    keys: None before that forward, which reads everything and is exact. Later ones feed columns `start` to `end` alone.
    """

    start: int
    end: int
    keys: Any = None

    def rows(self, index: Int[Tensor, " n"]) -> StaleCache:
        """A copy with these rows."""
        assert self.keys is not None, "rows are taken from a cache that has been filled"
        return StaleCache(start=self.start, end=self.end, keys=keys_of_rows(self.keys, index))


@register("policy", "masked")
class MaskedPolicy(BasePolicy):
    """Sees the whole canvas; the logits at a MASK are of the token under it (shifted by one for Dream)."""

    family: ClassVar[Family] = "masked"
    attention: ClassVar[Attention] = "full"

    def num_fed(self, cache: StaleCache) -> int:
        """Positions that a forward with this cache feeds, once it is filled."""
        return cache.end - cache.start + int(self.facts.is_shifted)

    def _after_prompt(
        self, inputs: dict[str, Tensor], keep: Tensor, width: int, cache: StaleCache
    ) -> Float[Tensor, "b c v"]:
        """With an empty cache feed everything and fill it; else feed the columns that it leaves out, and only those.

        A shifted model says a block's first column one position earlier, which is therefore fed, and read anew, too.
        """
        last = width + cache.end
        first = last - self.num_fed(cache)
        if cache.keys is None:
            output, keys = self._read_all(inputs, keep)
            cache.keys = _without(keys, first, last)
            return output
        assert first <= int(keep.min()) and int(keep.max()) < last, "only the columns that a cache leaves out are fed"
        fed = {name: value[:, first:last] for name, value in inputs.items() if name not in ("attention_mask", "time")}
        reads = inputs["attention_mask"][:, :, first:last]
        fed["attention_mask"] = torch.cat([reads[..., :first], reads[..., last:], reads[..., first:last]], dim=-1)
        if smeared := getattr(self.model.config, "num_smeared", 0):
            fed["previous_ids"] = last_ids(inputs["input_ids"][:, :first], smeared, self.canvas.pad_id)
        output = self._at(fed, keep - first, **self.kept(cache.keys))
        cache.keys.crop(first - last)
        return output

    def _read_all(self, inputs: dict[str, Tensor], keep: Tensor) -> tuple[Float[Tensor, "b c v"], Any]:
        """An exact forward, and all its keys and values. Raises ConfigError where the model does not keep them."""
        keys: Any = DynamicCache()
        total = inputs["input_ids"].shape[1]
        if self._cache_name is not None and _has_keys(self.model):
            output = self._at(inputs, keep, **self.kept(keys))
            if keys.layers and all(layer.get_seq_length() == total for layer in keys.layers):
                return output, keys
        name = type(without_adapter(self.model)).__name__
        raise ConfigError(
            f"{name} does not hand out keys and values of every layer and position, as encoders and models with "
            "recurrent layers do not, so nothing can be kept between steps. Take cache='exact', which reads everything "
            "in every step."
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
