"""Tokens that the grammar implies: every accepted canvas has them, so they are written without a draw or a forward.

Legend: b rows of the batch, n rows of the step, l canvas.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.likelihood.constraint import PAD, Constraint
from dllm_rl.records.events import Kind
from samplers.grammar.automaton import Automata
from samplers.loop.record import Recorder


class ForcedTokens:
    """Automata of the unfinished rows, and the tokens that they force; nothing without a constraint.

    constraint: of the whole batch; None without a grammar.
    record: where forced tokens are noted.
    writes_padding: whether the padding behind EOS, which is forced too, is written.
    """

    def __init__(self, constraint: Constraint | None, record: Recorder, *, writes_padding: bool) -> None:
        self.constraint, self.record, self.writes_padding = constraint, record, writes_padding
        self._last: tuple[Tensor, Automata] | None = None

    def automata(self, rows: Int[Tensor, " n"]) -> Automata | None:
        """The automata of these rows; the last ones are kept, since most rules ask about the same rows again."""
        if self.constraint is None:
            return None
        if self._last is None or not torch.equal(self._last[0], rows):
            self._last = rows, Automata(self.constraint.rows(rows))
        return self._last[1]

    def write(
        self, rows: Int[Tensor, " n"], canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], step: int
    ) -> None:
        """Write, in place, what every accepted canvas has at a masked position: probability 1, no draw, no forward."""
        automata = self.automata(rows)
        if automata is None:
            return
        row, column, tokens = automata.forced(canvas[rows], is_masked[rows])
        if not self.writes_padding:
            is_text = tokens != automata.constraint.token[row, PAD]
            row, column, tokens = row[is_text], column[is_text], tokens[is_text]
        canvas[rows[row], column] = tokens
        is_masked[rows[row], column] = False
        self.record.write_at(rows[row], column, step, tokens, Kind.FORCED)
