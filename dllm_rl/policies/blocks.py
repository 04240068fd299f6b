"""Where the blocks of a canvas lie: counted from its first column, or from the first token of each row's prompt.

Legend: b rows, n columns of the canvas, j blocks, m places of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.errors import ConfigError

# How the block family divides a prompt into blocks; None where it does not.
PromptBlocks = Literal["from_prompt", "from_canvas"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks of some rows.

    Attributes:
        size: Columns of a block; the first and the last one may have fewer.
        offset: Tokens of each row's prompt that lie in the first block of its canvas.
    """

    size: int
    offset: Int[Tensor, " b"]

    def divided(self, size: int) -> Blocks:
        """Return the blocks of a size that divides theirs."""
        return Blocks(size=size, offset=self.offset % size)

    def number(self, columns: Int[Tensor, " n"]) -> Int[Tensor, "b n"]:
        """Return the number of the block that each column lies in, for each row."""
        return (self.offset[:, None] + columns) // self.size

    def count(self, length: int) -> int:
        """Return how many blocks a canvas of this length has, in the row that has most."""
        return -(-(length + int(self.offset.max())) // self.size)

    def split(self, member: Bool[Tensor, "b n"]) -> Bool[Tensor, "b j m"]:
        """Return columns block by block; places that no column has are False."""
        length, count = member.shape[1], self.count(member.shape[1])
        column = torch.arange(count * self.size, device=member.device) - self.offset[:, None]
        is_column = (column >= 0) & (column < length)
        found = member.gather(1, column.clamp(min=0, max=length - 1)) & is_column
        return found.unflatten(1, (count, self.size))

    def join(self, parts: Tensor, length: int) -> Tensor:
        """Return what stands block by block, (..., b, j, m), as columns, (..., b, length)."""
        flat = parts.flatten(-2)
        place = torch.arange(length, device=parts.device) + self.offset[:, None]
        return flat.gather(-1, place.expand(*flat.shape[:-1], length))

    @property
    def common(self) -> int:
        """The offset of all rows. Raises ConfigError where they differ, since one loop writes one block in all rows."""
        offsets = self.offset.unique().tolist()
        if len(offsets) > 1:
            raise ConfigError(
                f"the blocks of these rows do not begin at the same column: their prompts have lengths that differ "
                f"modulo the block size of {self.size}, and blocks are counted from the prompt. Give one row at a "
                "time, or rows whose prompts are of like length."
            )
        return int(offsets[0])

    def start(self, column: int) -> int:
        """Return the first column of the block that a column lies in, the same in all rows; negative in the prompt."""
        return (column + self.common) // self.size * self.size - self.common

    def edges(self, length: int) -> list[tuple[int, int]]:
        """Return first and last column (exclusive) of each block, the same in all rows."""
        starts = range(-self.common, length, self.size)
        return [(max(start, 0), min(start + self.size, length)) for start in starts]
