"""How a step asks the model: over the whole canvas, or block by block with exact keys and values of what is finished.

Legend: b rows of the batch, n rows asked, c columns asked, l canvas, v vocabulary.
"""

from __future__ import annotations

from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.block import BlockCache, BlockPolicy
from dllm_rl.types import Prompts
from samplers._record import Recorder


class Reader(Protocol):
    """Asks the policy for the laws of columns, and counts what was fed."""

    def logits(
        self,
        rows: Int[Tensor, " n"],
        alive: Int[Tensor, " a"],
        canvas: Int[Tensor, "b l"],
        columns: Int[Tensor, "n c"],
        record: Recorder,
    ) -> Float[Tensor, "n c v"]:
        """Logits of the columns of these rows. alive: all rows that are not finished, these among them."""
        ...


class WholeCanvas:
    """Feeds prompt and canvas in every step."""

    def __init__(self, policy: BasePolicy, prompts: Prompts) -> None:
        self.policy, self.prompts = policy, prompts

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward over everything."""
        record.count(len(rows), self.prompts.ids.shape[1] + canvas.shape[1])
        return self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns)


class BlockByBlock:
    """Feeds the active block; a finished one once more, together with the first step of the next, and never again.

    So a finished block costs no forward of its own, and the prompt is read in the first one. Rows that wait for others
    in a block are not fed; rows that are finished leave.
    """

    def __init__(self, policy: BlockPolicy, prompts: Prompts) -> None:
        self.policy, self.prompts = policy, prompts
        # `settled` has what stands before the active block for all rows that were alive when it began; `active` the
        # same for the rows of the last step.
        self.settled = self.active = policy.read_prompts(prompts)
        self.rows = self.active_rows = torch.arange(len(prompts.ids))

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward over what is new up to the end of the block in which the columns lie."""
        size, width = self.policy.facts.block_size, self.prompts.ids.shape[1]
        start = int(columns.min()) // size * size
        if self.settled.length < width + start or not self.settled.length:
            return self._begin(rows, alive, canvas, columns, record)
        if not torch.equal(rows, self.active_rows):
            self.active = self.settled.rows(torch.searchsorted(self.rows, rows))
            self.active_rows = rows
        return self._forward(rows, canvas, columns, self.active, record)

    def _begin(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """The first step of a block: all that are alive are fed, since their finished blocks are to be kept."""
        if len(alive) < len(self.rows):
            self.settled = self.settled.rows(torch.searchsorted(self.rows, alive))
        place = torch.searchsorted(alive, rows)
        asked = columns.min().expand(len(alive), columns.shape[1]).clone()
        asked[place] = columns
        output = self._forward(alive, canvas, asked, self.settled, record)
        self.rows = self.active_rows = alive
        self.active = self.settled
        return output[place]

    def _forward(self, rows: Tensor, canvas: Tensor, columns: Tensor, cache: BlockCache, record: Recorder) -> Tensor:
        size, width = self.policy.facts.block_size, self.prompts.ids.shape[1]
        end = min((int(columns.min()) // size + 1) * size, canvas.shape[1])
        record.count(len(rows), width + end - cache.length)
        return self.policy.logits(self.prompts.rows(rows), canvas[rows], columns=columns, cache=cache)


def reader_of(policy: BasePolicy, prompts: Prompts, *, cache: bool) -> Reader:
    """Block by block where the policy's attention makes that exact."""
    if cache and isinstance(policy, BlockPolicy):
        return BlockByBlock(policy, prompts)
    return WholeCanvas(policy, prompts)
