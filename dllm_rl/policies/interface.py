"""Which inputs a model's forward takes: the built-in transformer reads more than a stock decoder.

Legend: b rows, c chosen positions, n scored positions of all rows, v vocabulary.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from dllm_rl.errors import ConfigError
from dllm_rl.policies.feed import Tokens, last_ids
from dllm_rl.policies.head import scored_only, without_adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInterface:
    """The optional inputs of a model's forward, and calls that give each model what it takes.

    model_name: name of the model's class, for messages.
    has_columns: the model is told the canvas column of each token.
    has_time: the model is told the noise level.
    lookback: number of tokens fed just before each one that the model reads with it; 0 for stock models.
    keeps_by_row: `logits_to_keep` may be other positions in each row.
    keeps_positions: the forward takes `logits_to_keep`; encoders do not, and give every position's logits.
    cache_name: the forward's argument for keys and values; transformers renamed it in 5.24. None: it names none.
    takes_any: the forward takes arguments that it does not name.
    pad_id: what stands before the first token.
    """

    model_name: str
    has_columns: bool
    has_time: bool
    lookback: int
    keeps_by_row: bool
    keeps_positions: bool
    cache_name: str | None
    takes_any: bool
    pad_id: int

    @classmethod
    def of(cls, model: torch.nn.Module, pad_id: int) -> ModelInterface:
        """Read what the model's forward takes from its signature and configuration."""
        bare = without_adapter(model)
        # An adapter's forward hides what the model under it takes.
        takes = inspect.signature(bare.forward).parameters
        config = bare.config
        return cls(
            model_name=type(bare).__name__,
            has_columns=bool(getattr(config, "num_columns", 0)),
            has_time=bool(getattr(config, "has_time", False)),
            lookback=getattr(config, "num_smeared", 0),
            keeps_by_row=getattr(config, "keeps_by_row", False),
            keeps_positions="logits_to_keep" in takes,
            cache_name=next((name for name in ("cache", "past_key_values") if name in takes), None),
            takes_any=any(item.kind is inspect.Parameter.VAR_KEYWORD for item in takes.values()),
            pad_id=pad_id,
        )

    def forward(
        self,
        model: torch.nn.Module,
        tokens: Tokens,
        keep: Int[Tensor, " c"] | Int[Tensor, "b c"],
        *,
        cache: Any = None,
        scored: Bool[Tensor, "b c"] | None = None,
    ) -> Float[Tensor, "b c v"] | Float[Tensor, "1 n v"]:
        """Return float32 logits at these positions of the stretch.

        cache: keys and values that are read, and added to in place.
        scored: which of the positions are wanted in each row; their logits come row after row, as one row, and no
            others are computed.
        """
        device = next(model.parameters()).device
        # Stock decoders compute the union of all rows' positions.
        by_row = keep.dim() == 2 and not self.keeps_by_row
        wanted = keep.unique() if by_row else keep
        inputs = {name: value.to(device) for name, value in self._inputs(tokens).items()}
        inputs |= {} if cache is None else self.cache_arguments(cache)
        if self.keeps_positions:
            inputs["logits_to_keep"] = wanted.to(device)
        if scored is not None:
            row, column = scored.nonzero(as_tuple=True)
            at = keep[column] if keep.dim() == 1 else keep[row, column]
            place = at if not self.keeps_positions else torch.searchsorted(wanted, at) if by_row else column
            read = wanted.shape[-1] if self.keeps_positions else tokens.ids.shape[1]
            with scored_only(model, row, place, shape=(len(scored), read)) as narrowed:
                return narrowed(model(**inputs).logits).float()
        output = model(**inputs).logits
        output = (output if self.keeps_positions else output.index_select(1, wanted.to(device))).float()
        if not by_row:
            return output
        place = torch.searchsorted(wanted, keep).to(output.device)
        return output.gather(1, place[..., None].expand(-1, -1, output.shape[-1]))

    def cache_arguments(self, cache: Any) -> dict[str, Any]:
        """Return the arguments by which the model reads these keys and values, and adds to them.

        Raises ConfigError where its forward takes none. One that takes anything is given the older name.
        """
        if self.cache_name is None and not self.takes_any:
            raise ConfigError(
                f"this sampler keeps keys and values between forwards, and the forward of {self.model_name} takes "
                "neither `cache` nor `past_key_values`. Use a decoder of transformers, or add the argument (a "
                "transformers Cache that is read and added to)."
            )
        return {self.cache_name or "past_key_values": cache, "use_cache": True}

    def _inputs(self, tokens: Tokens) -> dict[str, Tensor]:
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask, "position_ids": tokens.positions}
        if self.has_columns:
            inputs["column_ids"] = tokens.columns
        if self.has_time:
            inputs["time"] = torch.ones(len(tokens.ids)) if tokens.time is None else tokens.time
        if self.lookback and tokens.neighbours is not None:
            inputs["previous_ids"] = tokens.neighbours
        elif self.lookback and tokens.before is not None:
            inputs["previous_ids"] = last_ids(tokens.before, self.lookback, self.pad_id)
        return inputs


def keys_of_rows(keys: Any, index: Int[Tensor, " n"]) -> DynamicCache:
    """Return a copy of keys and values with these rows."""
    taken = DynamicCache()
    for number, layer in enumerate(keys.layers):
        own = index.to(layer.keys.device)
        taken.update(layer.keys[own], layer.values[own], number)
    return taken
