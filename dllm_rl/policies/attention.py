"""Attention masks over [prompt, canvas]: which positions each position reads.

Legend: b rows, t positions, n canvas columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.policies.blocks import PromptBlocks


class Attention(Protocol):
    """A rule that says which positions each position reads."""

    def mask(self, visible: Bool[Tensor, "b t"], width: int) -> Bool[Tensor, "b 1 t t"]:
        """Return True where a query may read a key.

        Args:
            visible: False at padding, which nobody but itself reads.
            width: Length of the prompt, behind which the canvas begins.
        """
        ...


@dataclass(frozen=True, slots=True)
class Full:
    """Every position reads every other."""

    def mask(self, visible: Bool[Tensor, "b t"], width: int) -> Bool[Tensor, "b 1 t t"]:
        """Return True at all keys that are not padding."""
        length = visible.shape[1]
        return with_itself(visible[:, None, None, :].expand(-1, 1, length, -1))


@dataclass(frozen=True, slots=True)
class Causal:
    """Every position reads those fed before it."""

    def mask(self, visible: Bool[Tensor, "b t"], width: int) -> Bool[Tensor, "b 1 t t"]:
        """Return True at earlier keys that are not padding."""
        return readable(visible, lower_triangle(visible.shape[1], visible.device))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCausal:
    """A column reads the prompt, all earlier blocks and its own block.

    Attributes:
        block_size: Columns of a block; the last one may be shorter.
        is_prompt_causal: Within the prompt each token reads those before it, else all of them.
        prompt_blocks: The prompt is read block by block, too. `from_prompt`: blocks are counted from its first token,
            so that its last ones may share a block with the first columns (SDAR, LLaDA2). `from_canvas`: backwards from
            the first column (BD3-LM).
    """

    block_size: int
    is_prompt_causal: bool = False
    prompt_blocks: PromptBlocks = None

    def mask(self, visible: Bool[Tensor, "b t"], width: int) -> Bool[Tensor, "b 1 t t"]:
        """Return True at keys of no higher rank."""
        rank = self.rank(visible[:, :width], torch.arange(visible.shape[1] - width, device=visible.device))
        return readable(visible, (rank[:, None, :] <= rank[:, :, None])[:, None])

    def rank(self, prompt_mask: Bool[Tensor, "b p"], columns: Int[Tensor, " n"]) -> Int[Tensor, "r t"]:
        """Rank of the prompt's positions, then of these columns: a position reads all of no higher rank.

        One row for all, where ranks do not depend on the length of the prompt.
        """
        if self.prompt_blocks == "from_prompt":
            place = (prompt_mask.long().cumsum(dim=1) - 1).clamp(min=0)
            return torch.cat([place, prompt_mask.sum(dim=1, keepdim=True) + columns], dim=1) // self.block_size
        before = torch.arange(-prompt_mask.shape[1], 0, device=columns.device)
        if self.prompt_blocks == "from_canvas":
            before = before // self.block_size
        elif not self.is_prompt_causal:
            before = torch.full_like(before, -1)
        return torch.cat([before, columns // self.block_size])[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a canvas is read.

    Attributes:
        attention: Which positions each position reads.
        is_shifted: The logits of a column stand one position before it.
    """

    attention: Attention
    is_shifted: bool = False


# The two mis-specified readings of the original study.
CAUSAL, CAUSAL_SHIFTED = Reading(attention=Causal()), Reading(attention=Causal(), is_shifted=True)


def readable(
    visible: Bool[Tensor, "b t"], allowed: Bool[Tensor, "t t"] | Bool[Tensor, "r 1 t t"]
) -> Bool[Tensor, "b 1 t t"]:
    """Return the allowed keys without padding; every query reads itself."""
    return with_itself(visible[:, None, None, :] & allowed)


def lower_triangle(length: int, device: torch.device | None = None) -> Bool[Tensor, "t t"]:
    """Return True at keys that do not stand behind the query."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def with_itself(mask: Bool[Tensor, "b 1 t t"]) -> Bool[Tensor, "b 1 t t"]:
    """Let every query read itself, so that rows of padding stay finite."""
    return mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)


def additive(mask: Bool[Tensor, "b 1 t s"], dtype: torch.dtype) -> Float[Tensor, "b 1 t s"]:
    """Return what is added to attention scores: 0 where a key may be read, else the lowest number of this type.

    Every attention implementation that takes a mask reads this form alike. Booleans are a mask to some, and are added
    as 1 and 0 by others, which masks nothing.
    """
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
