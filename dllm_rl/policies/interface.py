"""How a model is called: which optional inputs its forward takes, what it returns, and its keys and values.

Legend as in `dllm_rl.policies.feed`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.attention import additive
from dllm_rl.policies.feed import Tokens, last_ids
from dllm_rl.policies.head import bare_head, dtype_of, output_head, scored_only, without_adapter

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInterface:
    """The optional inputs of a model's forward, and calls that give each model what it takes.

    Attributes:
        model_name: Name of the model's class, for messages.
        has_columns: The model is told the canvas column of each token.
        has_time: The model is told the noise level.
        lookback: Number of tokens fed just before each one that the model reads with it; 0 for stock models.
        keeps_by_row: `logits_to_keep` may be other positions in each row.
        keeps_positions: The forward takes `logits_to_keep`; encoders do not, and give every position's logits.
        cache_name: The forward's argument for keys and values; transformers renamed it in 5.24. None: it names none.
        takes_any: The forward takes arguments that it does not name.
        reads_booleans: The model reads boolean attention masks. Stock models may add a mask to their scores, where True
            would allow and False forbid nothing, so they get numbers.
        pad_id: What stands before the first token.
        first_position: Number of a text's first position: RoBERTa and its kin count from behind their padding's.
    """

    model_name: str
    has_columns: bool
    has_time: bool
    lookback: int
    keeps_by_row: bool
    keeps_positions: bool
    cache_name: str | None
    takes_any: bool
    reads_booleans: bool
    pad_id: int
    first_position: int

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
            reads_booleans=getattr(config, "reads_booleans", False),
            pad_id=pad_id,
            first_position=_first_position(bare),
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
        """Return logits at these positions of the stretch, float32 or, where the model is, float64.

        Args:
            cache: Keys and values that are read, and added to in place.
            scored: Which of the positions are wanted in each row; their logits come row after row, as one row, and no
                others are computed.
        """
        inputs, wanted = self._arguments(model, tokens, keep, cache)
        if scored is not None:
            row, place, shape = self._scored(tokens, keep, wanted, scored)
            with scored_only(model, row, place, shape=shape) as narrowed:
                return at_least_float32(narrowed(model(**inputs).logits))
        output = model(**inputs).logits
        output = at_least_float32(output if self.keeps_positions else output.index_select(1, wanted.to(output.device)))
        if not self._is_by_row(keep):
            return output
        place = torch.searchsorted(wanted, keep).to(output.device)
        return output.gather(1, place[..., None].expand(-1, -1, output.shape[-1]))

    def states(
        self,
        model: torch.nn.Module,
        tokens: Tokens,
        keep: Int[Tensor, " c"] | Int[Tensor, "b c"],
        *,
        scored: Bool[Tensor, "b c"],
    ) -> Float[Tensor, "1 n d"] | None:
        """Return what the output head would read at these positions (see `forward`), in the model's own numbers.

        None where logits are more than what the head gives (a soft cap, a scale), or the model names no head.
        """
        if output_head(model) is None:
            return None
        inputs, wanted = self._arguments(model, tokens, keep, None)
        row, place, shape = self._scored(tokens, keep, wanted, scored)
        with bare_head(model) as given, scored_only(model, row, place, shape=shape) as narrowed:
            output = model(**inputs).logits
            return narrowed(output) if given and output is given[-1] else None

    def _is_by_row(self, keep: Tensor) -> bool:
        """Whether rows want other positions, and the model can only be asked for the same in all of them."""
        return keep.dim() == 2 and not self.keeps_by_row

    def _scored(
        self, tokens: Tokens, keep: Tensor, wanted: Tensor, scored: Bool[Tensor, "b c"]
    ) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], tuple[int, int]]:
        """Row and place of each scored position among those that the head reads, and how many these are."""
        row, column = scored.nonzero(as_tuple=True)
        at = keep[column] if keep.dim() == 1 else keep[row, column]
        by_row = self._is_by_row(keep)
        place = at if not self.keeps_positions else torch.searchsorted(wanted, at) if by_row else column
        read = wanted.shape[-1] if self.keeps_positions else tokens.ids.shape[1]
        return row, place, (len(scored), read)

    def _arguments(
        self, model: torch.nn.Module, tokens: Tokens, keep: Tensor, cache: Any
    ) -> tuple[dict[str, Any], Tensor]:
        """Arguments of the model's forward, and the positions whose logits it is asked for."""
        device = next(model.parameters()).device
        # Stock decoders compute the union of all rows' positions.
        wanted = keep.unique() if self._is_by_row(keep) else keep
        inputs: dict[str, Any] = {name: value.to(device) for name, value in self._inputs(tokens).items()}
        if not self.reads_booleans:
            inputs["attention_mask"] = additive(inputs["attention_mask"], dtype_of(model))
        if cache is not None:
            inputs |= self.cache_arguments(cache)
        elif self.cache_name is not None and self.takes_any:
            # Else stock decoders keep keys and values that nobody asks for.
            inputs["use_cache"] = False
        if self.keeps_positions:
            inputs["logits_to_keep"] = wanted.to(device)
        return inputs, wanted

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
        inputs = {
            "input_ids": tokens.ids,
            "attention_mask": tokens.mask,
            "position_ids": tokens.positions + self.first_position,
        }
        if self.has_columns:
            inputs["column_ids"] = tokens.columns
        if self.has_time:
            inputs["time"] = torch.ones(len(tokens.ids)) if tokens.time is None else tokens.time
        if self.lookback and tokens.neighbours is not None:
            inputs["previous_ids"] = tokens.neighbours
        elif self.lookback and tokens.before is not None:
            inputs["previous_ids"] = last_ids(tokens.before, self.lookback, self.pad_id)
        return inputs


def _first_position(model: torch.nn.Module) -> int:
    """0, or what follows the place of padding in a table of positions that has one."""
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    padding = [table.padding_idx for table in tables if isinstance(table, torch.nn.Embedding)]
    return 0 if not padding or padding[0] is None else padding[0] + 1


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits in float32, or in the wider numbers that they have."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def empty_keys() -> DynamicCache:
    """Return a cache of keys and values that holds nothing. transformers, slow to import, is needed only from here."""
    from transformers import DynamicCache

    return DynamicCache()


def keys_of_rows(keys: Any, index: Int[Tensor, " n"]) -> DynamicCache:
    """Return a copy of keys and values with these rows."""
    taken = empty_keys()
    for number, layer in enumerate(keys.layers):
        own = index.to(layer.keys.device)
        taken.update(layer.keys[own], layer.values[own], number)
    return taken
