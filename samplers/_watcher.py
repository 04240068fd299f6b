"""What may look on while the loop of the masked family writes: change logits, show drafts, stop rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from dllm_rl.types import Prompts


class Watcher:
    """Looks on and changes nothing; subclasses override what they need. A watched batch is never divided.

    Legend: b rows, r rows asked, n asked columns, l canvas, v vocabulary, m drawn positions.
    """

    def logits(
        self,
        rows: Int[Tensor, " r"],
        prompts: Prompts,
        canvas: Int[Tensor, "r l"],
        columns: Int[Tensor, "r n"],
        logits: Float[Tensor, "r n v"],
    ) -> Float[Tensor, "r n v"]:
        """The model's logits of these rows of the batch, before any statistic is taken of them."""
        return logits

    def truncate(self, laws: Float[Tensor, "m v"]) -> Float[Tensor, "m v"]:
        """The tempered laws of positions that are about to be drawn; ranks were taken before."""
        return laws

    def wrote(self, canvas: Int[Tensor, "b l"], step: int) -> None:
        """A step has been written."""

    def block_done(self, canvas: Int[Tensor, "b l"], start: int, end: int) -> Bool[Tensor, " b"]:
        """Columns start to end are final; which rows are to stop here."""
        return torch.zeros(len(canvas), dtype=torch.bool)
