"""A reader around two others: guidance (LLaDA, 2502.09992).

Legend: b rows of the batch, n rows asked, c columns asked, l canvas, v vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
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

    def begins(self, columns: Tensor) -> bool:
        """As of the two readers, which are of one kind."""
        return self.conditional.begins(columns)


def without_prompt(prompts: Prompts, mask_id: int) -> Prompts:
    """The same rows with MASK for every token of the prompt; padding stays padding."""
    return replace(prompts, ids=torch.where(prompts.mask, mask_id, prompts.ids))
