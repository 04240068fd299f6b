"""What a policy feeds its model: prompt and canvas as one line of tokens, and the inputs that a forward takes.

Legend: b rows, p prompt, l canvas, c chosen columns, t fed tokens, n remembered or scored tokens, s keys, v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.policies.attention import Attention
from dllm_rl.policies.sharing import Shared, share
from dllm_rl.records.types import Prompts, Rollouts, Views


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
        order: Order in which the canvas columns are fed; each token keeps its true position. Default: left to right.
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
