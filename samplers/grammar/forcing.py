"""What the grammar leaves no choice about in canvases that are written in any order.

Legend: b rows of the batch, n rows asked, l canvas.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.constraint import PAD, Constraint
from dllm_rl.events import Kind
from samplers.grammar.automaton import Automata
from samplers.loop.record import Recorder


class Forcing:
    """The automata of the rows that go on, and the tokens that they force; without a constraint, nothing.

    pads: whether the padding behind EOS, which is forced too, is written.
    """

    def __init__(self, constraint: Constraint | None, record: Recorder, *, pads: bool) -> None:
        self.constraint, self.record, self.pads = constraint, record, pads
        self._last: tuple[Tensor, Automata] | None = None

    def automata(self, rows: Int[Tensor, " n"]) -> Automata | None:
        """The automata of these rows; the last ones are kept, since most rules ask the same rows again."""
        if self.constraint is None:
            return None
        if self._last is None or not torch.equal(self._last[0], rows):
            self._last = rows, Automata(self.constraint.rows(rows))
        return self._last[1]

    def force(
        self, rows: Int[Tensor, " n"], canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], step: int
    ) -> None:
        """Write, in place, what every accepted canvas has at a masked position: no draw, no forward, probability 1."""
        automata = self.automata(rows)
        if automata is None:
            return
        row, column, tokens = automata.forced(canvas[rows], is_masked[rows])
        if not self.pads:
            is_text = tokens != automata.constraint.token[row, PAD]
            row, column, tokens = row[is_text], column[is_text], tokens[is_text]
        canvas[rows[row], column] = tokens
        is_masked[rows[row], column] = False
        self.record.write_at(rows[row], column, step, tokens, Kind.FORCED)
