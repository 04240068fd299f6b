"""Readers around another one: guidance (LLaDA, 2502.09992), and memory of what has been asked (MDLM, 2406.07524).

Legend: b rows of the batch, n rows asked, c columns asked, l canvas, v vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.types import Prompts
from samplers._readers import Reader
from samplers._record import Recorder


class Guided:
    """Classifier-free guidance: l_u + (s + 1) (l_c - l_u), where l_u is asked with every token of the prompt masked.

    Two forwards a step, both counted. The logits are those of the guided law: what is drawn from it cannot be replayed
    with the policy's own.
    """

    def __init__(self, conditional: Reader, unconditional: Reader, strength: float) -> None:
        self.conditional, self.unconditional, self.strength = conditional, unconditional, strength

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward of each kind; ids that are banned in one stay so."""
        known = self.conditional.logits(rows, alive, canvas, columns, record)
        unknown = self.unconditional.logits(rows, alive, canvas, columns, record)
        guided = unknown + (self.strength + 1) * (known - unknown)
        return guided.masked_fill(known.isinf() | unknown.isinf(), -torch.inf)


def without_prompt(prompts: Prompts, mask_id: int) -> Prompts:
    """The same rows with MASK for every token of the prompt; padding stays padding."""
    return replace(prompts, ids=torch.where(prompts.mask, mask_id, prompts.ids))


class Remembering:
    """Asks again only in rows whose canvas has changed since they were last asked, or that are asked for other columns.

    Ids are compared exactly, row by row: MDLM compares whole batches by closeness, which takes 126000 for 126001.
    """

    def __init__(self, reader: Reader, canvas: Int[Tensor, "b l"]) -> None:
        self.reader = reader
        self.canvas = canvas.clone()
        # Where in the last answer each row stands; -1: nowhere.
        self.place = torch.full((len(canvas),), -1)

    def logits(self, rows: Tensor, alive: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """Those of the last answer where nothing has changed; no forward where that is so in all rows."""
        is_same = self._is_same(rows, canvas[rows], columns)
        new = (~is_same).nonzero().squeeze(1)
        if len(new) == len(rows):
            answer = self.reader.logits(rows, alive, canvas, columns, record)
        else:
            answer = self.answer[self.place[rows].clamp(min=0), : columns.shape[1]]
            if len(new):
                answer[new] = self.reader.logits(rows[new], alive, canvas, columns[new], record)
        self.answer, self.columns = answer, columns
        self.canvas[rows] = canvas[rows]
        self.place.fill_(-1)
        self.place[rows] = torch.arange(len(rows))
        # What looks on may change logits in place.
        return answer.clone()

    def _is_same(self, rows: Tensor, canvas: Tensor, columns: Tensor) -> Bool[Tensor, " n"]:
        place, width = self.place[rows], columns.shape[1]
        if (place < 0).all() or self.columns.shape[1] < width:
            return torch.zeros(len(rows), dtype=torch.bool)
        same_columns = (self.columns[place.clamp(min=0), :width] == columns).all(dim=1)
        return (place >= 0) & same_columns & (self.canvas[rows] == canvas).all(dim=1)
