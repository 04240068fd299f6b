"""What a policy feeds its model: prompt and canvas as one line of tokens, and the inputs that a forward takes.

Legend: b rows, p prompt, l canvas, c chosen columns, t fed tokens, n remembered or scored tokens, s keys, v vocabulary.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.attention import Attention, additive
from dllm_rl.policies.head import bare_head, dtype_of, output_head, scored_only, without_adapter
from dllm_rl.policies.sharing import Shared, share
from dllm_rl.records.types import Prompts, Rollouts, Views

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A stretch of tokens for one forward.

    Attributes:
        ids: The tokens.
        mask: True where a token may read a key; keys that a cache holds come first.
        positions: True position of each token; padding does not count.
        columns: 1 + canvas column of a token, 0 in the prompt.
        before: What was fed before the stretch, its last tokens at the end; None where nothing was.
        neighbours: For each token those before it, the nearest first, where the stretch and `before` do not say it.
        time: Noise level of each row; None where the model reads none.
    """

    ids: Int[Tensor, "b t"]
    mask: Bool[Tensor, "b 1 t s"]
    positions: Int[Tensor, "b t"]
    columns: Int[Tensor, "b t"]
    before: Int[Tensor, "b n"] | None = None
    neighbours: Int[Tensor, "b t n"] | None = None
    time: Float[Tensor, " b"] | None = None

    def between(self, first: int, last: int, *, mask: Bool[Tensor, "b 1 t s"] | None = None) -> Tokens:
        """Return tokens first to last, given that all before them have been fed.

        Args:
            mask: What may be read. Default: what these tokens read of everything.
        """
        return replace(
            self,
            ids=self.ids[:, first:last],
            mask=self.mask[:, :, first:last] if mask is None else mask,
            positions=self.positions[:, first:last],
            columns=self.columns[:, first:last],
            before=self.ids[:, :first],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """A batch of prompts and canvases.

    Attributes:
        time: Noise level of each row (flow family).
        order: Order in which the canvas columns are fed; each token keeps its true position. Default: as they stand.
        clean: What stands in the blocks before each one (block family). Default: the canvas.
    """

    prompt_ids: Int[Tensor, "b p"]
    prompt_mask: Bool[Tensor, "b p"]
    canvas: Int[Tensor, "b l"]
    time: Float[Tensor, " b"] | None = None
    order: Int[Tensor, "b l"] | None = None
    clean: Int[Tensor, "b l"] | None = None

    @classmethod
    def of(cls, prompts: Prompts, canvas: Int[Tensor, "b l"]) -> Feed:
        """Return the feed of tokenised prompts with these canvases."""
        return cls(prompt_ids=prompts.ids, prompt_mask=prompts.mask, canvas=canvas)

    @classmethod
    def of_view(cls, rollouts: Rollouts, view: Views) -> Feed:
        """Return the feed of a view, alone."""
        return cls(
            prompt_ids=rollouts.prompt_ids if view.prompt_tokens is None else view.prompt_tokens[0],
            prompt_mask=rollouts.prompt_mask,
            canvas=view.tokens[0],
            time=None if view.time is None else view.time[0],
            order=None if view.order is None else view.order[0],
        )

    @property
    def width(self) -> int:
        """Length of the prompt."""
        return self.prompt_ids.shape[1]

    def rows(self, index: Int[Tensor, " n"]) -> Feed:
        """Return the rows of this index."""
        return replace(self, **{name: part[index] for name, part in self._parts().items()})

    def shared(self, among: Bool[Tensor, " b"] | None = None, *, also: tuple[Tensor, ...] = ()) -> Shared:
        """Return which rows are equal in everything that is fed.

        Args:
            among: Rows that are asked about. Default: all.
            also: What they must be equal in, too.
        """
        return share([*self._parts().values(), *also], among)

    def _parts(self) -> dict[str, Tensor]:
        parts = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: part for name, part in parts.items() if part is not None}

    def tokens(self, attention: Attention) -> Tokens:
        """Return everything as one stretch. Positions count real tokens, so that padding changes nothing."""
        column = torch.arange(self.canvas.shape[1], device=self.canvas.device).expand_as(self.canvas)
        fed_column = column if self.order is None else self.order
        fed = self.canvas if self.order is None else self.canvas.gather(1, self.order)
        visible = torch.cat([self.prompt_mask, torch.ones_like(fed, dtype=torch.bool)], dim=1)
        real = self.prompt_mask.sum(dim=1, keepdim=True)
        return Tokens(
            ids=torch.cat([self.prompt_ids, fed], dim=1),
            mask=attention.mask(visible, self.width),
            positions=torch.cat([prompt_positions(self.prompt_mask), real + fed_column], dim=1),
            columns=torch.cat([torch.zeros_like(self.prompt_ids), fed_column + 1], dim=1),
            time=self.time,
        )

    def places(self, columns: Int[Tensor, " c"] | Int[Tensor, "b c"]) -> Int[Tensor, " c"] | Int[Tensor, "b c"]:
        """Return where in the stretch these columns are fed."""
        if self.order is None:
            return self.width + columns
        column = torch.arange(self.canvas.shape[1], device=self.canvas.device).expand_as(self.canvas)
        place = torch.empty_like(self.order).scatter_(1, self.order, column)
        return self.width + (place[:, columns] if columns.dim() == 1 else place.gather(1, columns))


def places_of(
    feed: Feed, columns: Int[Tensor, " c"] | Int[Tensor, "b c"] | None, *, is_shifted: bool
) -> Int[Tensor, " c"] | Int[Tensor, "b c"]:
    """Return where in the stretch a model gives the logits of these columns; of all of them by default."""
    device = feed.canvas.device
    asked = torch.arange(feed.canvas.shape[1], device=device) if columns is None else columns.to(device)
    return feed.places(asked) - int(is_shifted and feed.order is None)


def prompt_tokens(prompts: Prompts, attention: Attention) -> Tokens:
    """Return a stretch of the prompts alone."""
    return Tokens(
        ids=prompts.ids,
        mask=attention.mask(prompts.mask, prompts.ids.shape[1]),
        positions=prompt_positions(prompts.mask),
        columns=torch.zeros_like(prompts.ids),
    )


def prompt_positions(mask: Bool[Tensor, "b p"]) -> Int[Tensor, "b p"]:
    """Return the position of each token among the real ones; 0 at padding on the left."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


def last_ids(ids: Int[Tensor, "b t"], count: int, pad_id: int) -> Int[Tensor, "b n"]:
    """Return the last `count` ids of each row, padded on the left where there are fewer."""
    tail = ids[:, max(0, ids.shape[1] - count) :]
    return F.pad(tail, (count - tail.shape[1], 0), value=pad_id)


def neighbours(ids: Int[Tensor, "b t"], count: int, pad_id: int) -> Int[Tensor, "b t n"]:
    """Return the `count` tokens before each token, the nearest first."""
    padded = F.pad(ids, (count, 0), value=pad_id)
    shift = torch.arange(1, count + 1, device=ids.device)
    return padded[:, torch.arange(ids.shape[1], device=ids.device)[:, None] + count - shift]


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
