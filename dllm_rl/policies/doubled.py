"""One pass that scores all blocks, each given its noisy columns and the clean blocks before it (BD3-LM, 2503.09573).

What is fed is [prompt, clean columns, noisy columns]. Where the prompt's last tokens lie in the first block, they read
its noisy columns, so they are fed once more at the head of these.

Legend: b rows, p prompt, l canvas, c scored columns, n clean columns, m noisy ones, t fed tokens, s smeared tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.policies.attention import BlockCausal, readable
from dllm_rl.policies.blocks import Blocks
from dllm_rl.policies.feed import Feed, Tokens, neighbours, prompt_positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubled:
    """What is fed.

    Attributes:
        feed: Prompts with the noisy canvases.
        clean: The canvases that stand before each block.
        blocks: Where blocks lie.
        known: Columns that are fed clean, all before the last block that is asked about.
        hidden: Columns that are fed noisy, all of the blocks that are asked about.
        tail: How many of the prompt's last tokens are fed with the noisy columns.
    """

    feed: Feed
    clean: Int[Tensor, "b l"]
    blocks: Blocks
    known: Int[Tensor, " n"]
    hidden: Int[Tensor, " m"]
    tail: int

    @classmethod
    def of(cls, feed: Feed, clean: Int[Tensor, "b l"], columns: Int[Tensor, " c"], blocks: Blocks) -> Doubled:
        """Return what has to be fed to score these columns (sorted)."""
        every = torch.arange(clean.shape[1], device=columns.device)
        number = blocks.number(every)
        asked = torch.zeros(len(number), int(number.max()) + 1, dtype=torch.bool, device=columns.device)
        asked = asked.scatter(1, number[:, columns], True)
        last = int((number[:, columns[-1]] * blocks.size - blocks.offset).max())
        return cls(
            feed=feed,
            clean=clean,
            blocks=blocks,
            known=every[: max(last, 0)],
            hidden=every[asked.gather(1, number).any(dim=0)],
            tail=int(blocks.offset.max()),
        )

    @property
    def noisy_from(self) -> int:
        """Place of the first noisy column."""
        return self.feed.width + len(self.known) + self.tail

    def places(self, columns: Int[Tensor, " c"]) -> Int[Tensor, " c"]:
        """Return where these columns are fed noisy."""
        return self.noisy_from + torch.searchsorted(self.hidden, columns)

    def places_before(self, columns: Int[Tensor, " c"]) -> Int[Tensor, "b c"]:
        """Return where what stands just before these columns is fed: noisy in their block, clean before it."""
        place = self.blocks.offset[:, None] + columns
        is_first = place % self.blocks.size == 0
        noisy = torch.where(columns > 0, self.places((columns - 1).clamp(min=0)), self.noisy_from - 1)
        return torch.where(is_first, self.feed.width + columns - 1, noisy)

    def tokens(self, attention: BlockCausal, *, lookback: int, pad_id: int) -> Tokens:
        """Return the stretch.

        Args:
            lookback: See `ModelInterface`.
            pad_id: See `ModelInterface`.
        """
        feed, both = self.feed, torch.cat([self.known, self.hidden])
        prompt, tail = feed.prompt_ids, feed.width - self.tail
        real, place = feed.prompt_mask.sum(dim=1, keepdim=True), prompt_positions(feed.prompt_mask)
        ids = [prompt, self.clean[:, self.known], prompt[:, tail:], feed.canvas[:, self.hidden]]
        is_column = torch.ones_like(prompt[:, :1], dtype=torch.bool).expand(-1, len(both))
        columns = (both + 1).expand(len(prompt), -1)
        return Tokens(
            ids=torch.cat(ids, dim=1),
            mask=readable(self._ordered(feed.prompt_mask, is_column), self._mask(attention)),
            positions=self._ordered(place, real + both),
            columns=self._ordered(torch.zeros_like(prompt), columns),
            neighbours=self._neighbours(lookback, pad_id),
        )

    def _ordered(self, prompt: Tensor, columns: Tensor) -> Tensor:
        """Values of the prompt, and of clean and noisy columns, in the order in which they are fed."""
        known, hidden = columns.tensor_split([len(self.known)], dim=1)
        return torch.cat([prompt, known, prompt[:, self.feed.width - self.tail :], hidden], dim=1)

    def _mask(self, attention: BlockCausal) -> Bool[Tensor, "r 1 t t"]:
        """Clean tokens read clean blocks up to their own; noisy ones read earlier clean blocks and their noisy own."""
        rank = attention.rank(self.feed.prompt_mask, torch.cat([self.known, self.hidden]))
        rank = self._ordered(rank[:, : self.feed.width], rank[:, self.feed.width :])
        is_noisy = torch.arange(rank.shape[1], device=rank.device) >= self.noisy_from - self.tail
        same = rank[:, None, :] == rank[:, :, None]
        earlier = (rank[:, None, :] < rank[:, :, None]) | (same & ~is_noisy[:, None])
        return torch.where(is_noisy, same & is_noisy[:, None], earlier)[:, None]

    def _neighbours(self, count: int, pad_id: int) -> Int[Tensor, "b t s"]:
        """The tokens before each one: noisy inside a noisy block, clean before it."""
        feed, width, hidden = self.feed, self.feed.width, self.hidden
        before = neighbours(torch.cat([feed.prompt_ids, self.clean], dim=1), count, pad_id)
        inside = neighbours(torch.cat([feed.prompt_ids, feed.canvas], dim=1), count, pad_id)
        place = (self.blocks.offset[:, None] + hidden) % self.blocks.size
        same_block = place[..., None] > torch.arange(count, device=hidden.device)
        of_noisy = torch.where(same_block, inside[:, width + hidden], before[:, width + hidden])
        return torch.cat([before[:, : width + len(self.known)], before[:, width - self.tail : width], of_noisy], dim=1)
