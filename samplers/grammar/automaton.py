"""The sums and maxima of `dllm_rl.likelihood.constraint` without gradients, fast enough to run at every denoising step.

Between two lines of an aligned canvas only the separator states are possible (`Constraint.separators`). So all lines
are processed side by side, once for each state that a line may end in, and are then joined by a scan over the few
states between them (the associative scan of Sarkka and Garcia-Fernandez, 1905.13002, over segments). A canvas without
separators is one segment.

The automata of a batch are one automaton with many starts: nodes, edges and labels of all rows lie side by side, and
reductions run over sorted edges. Arrays are NumPy's, whose small operations cost less than a tensor library's.

Legend: b rows, l canvas, c labels, k segments, w columns of a segment, t separators, r rows x states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from dllm_rl.likelihood.constraint import ACCEPT, EOS, PAD, START, TEXT, Constraint

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grouped:
    """Edges sorted by what they are reduced to.

    Attributes:
        order: The edges in sorted order.
        keys: The distinct targets of the reduction.
        starts: First edge of each target.
        group: Target that each edge belongs to, by its place in `keys`.
    """

    order: NDArray[np.int64]
    keys: NDArray[np.int64]
    starts: NDArray[np.int64]
    group: NDArray[np.int64]

    @classmethod
    def by(cls, key: NDArray[np.int64]) -> Grouped:
        """Sort edges by this key; edges of equal key keep their order."""
        order = np.argsort(key, kind="stable")
        keys, starts, group = np.unique(key[order], return_index=True, return_inverse=True)
        return cls(order, keys, starts, group)

    def largest(self, values: Floats) -> Floats:
        """Maximum of each group, over the last axis."""
        return np.maximum.reduceat(values, self.starts, axis=-1)

    def log_sum(self, values: Floats) -> Floats:
        """Log of the summed exponentials of each group, over the last axis."""
        top = self.largest(values)
        values -= np.take(top, self.group, axis=-1)
        np.exp(values, out=values)
        return top + np.log(np.add.reduceat(values, self.starts, axis=-1))


class Automata:
    """The automata of some rows as flat arrays."""

    def __init__(self, constraint: Constraint) -> None:
        self.constraint = constraint
        self.num_rows, self.num_labels = constraint.token.shape
        self.num_states, self.length = constraint.num_states, len(constraint.is_legal)
        self.width = constraint.width or self.length
        self.num_segments = -(-self.length // self.width)
        self.separators = np.array(constraint.separators if constraint.width else (START, ACCEPT))
        row, edge = (constraint.source != constraint.num_states - 1).nonzero(as_tuple=True)
        source, target, label = (
            of_edge[row, edge].numpy() for of_edge in (constraint.source, constraint.target, constraint.label)
        )
        base = row.numpy()
        self.row, self.edge_label = base, label
        self.source, self.target = base * self.num_states + source, base * self.num_states + target
        self.label = base * self.num_labels + label
        self.by_source, self.by_target = Grouped.by(self.source), Grouped.by(self.target)
        self.by_label = Grouped.by(self.label)
        self.separator_nodes = np.arange(self.num_rows) * self.num_states + self.separators[:, None]
        self.row_of_node = np.repeat(np.arange(self.num_rows), self.num_states)
        self.out_edges = self._out_edges()
        self.rest = constraint.rest()

    def _out_edges(self) -> NDArray[np.int64]:
        """(r, d): the edges that leave each node, in the constraint's order; -1 where there are fewer than d."""
        grouped = self.by_source
        place = np.arange(len(grouped.order)) - grouped.starts[grouped.group]
        table = np.full((self.num_rows * self.num_states, place.max() + 1), -1)
        table[grouped.keys[grouped.group], place] = grouped.order
        return table

    def segments(self, by_column: NDArray[Any], blank: Any) -> NDArray[Any]:
        """(l, ...) to (k, w, ...), the last segment filled up."""
        missing = self.num_segments * self.width - self.length
        padded = np.concatenate([by_column, np.full((missing, *by_column.shape[1:]), blank, by_column.dtype)])
        return padded.reshape(self.num_segments, self.width, *by_column.shape[1:])

    def num_reaching(self, place: int) -> int:
        """How many segments have a column at this place; only the last one may be shorter."""
        return self.num_segments - ((self.num_segments - 1) * self.width + place >= self.length)

    @property
    def last_width(self) -> int:
        """Columns of the last segment."""
        return self.length - (self.num_segments - 1) * self.width

    def reachable(self, canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"]) -> Bool[Tensor, "b l c"]:
        """As `Constraint.reachable`: labels that an accepted canvas can have. Ways to end are bits of one byte."""
        labels = self.constraint.labels_of(canvas)
        legal = is_masked[..., None] | (labels[..., None] == torch.arange(self.num_labels))
        legal &= self.constraint.legal()
        scores = self.segments(by_column(legal.numpy().astype(np.uint8) * 255), np.uint8(0))
        back = self._bits_back(scores)
        bits = (1 << np.arange(len(self.separators))).astype(np.uint8)
        to_end = back[:, 0][:, self.separator_nodes]
        can_end = np.zeros((self.num_segments + 1, self.num_rows), np.uint8)
        can_end[-1] = bits[self.separators == ACCEPT]
        for segment in reversed(range(self.num_segments)):
            can = (to_end[segment] & can_end[segment + 1]) != 0
            can_end[segment] = (can * bits[:, None]).sum(axis=0, dtype=np.uint8)
        self.check(can_end[0] & bits[self.separators == START] != 0)
        is_possible = (back & can_end[1:, None, self.row_of_node]) != 0
        ahead = self._bits_ahead(scores, to_end)
        passes = ahead[:, :-1][..., self.source] & (scores != 0)[..., self.label] & is_possible[:, 1:][..., self.target]
        found = np.zeros((*passes.shape[:2], self.num_rows * self.num_labels), bool)
        found[..., self.by_label.keys] = np.logical_or.reduceat(
            passes[..., self.by_label.order], self.by_label.starts, axis=-1
        )
        flat = found.reshape(-1, self.num_rows, self.num_labels)[: self.length]
        return torch.from_numpy(flat.transpose(1, 0, 2).copy())

    def forced(
        self, canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"], *, has_padding: bool
    ) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Row, column and token of the masked positions at which every accepted canvas has the same token.

        Args:
            has_padding: Whether the padding behind EOS is among them.
        """
        labels = self.reachable(canvas, is_masked)
        is_forced = is_masked & (labels.sum(dim=-1) == 1) & ~labels[..., TEXT]
        if not has_padding:
            is_end = labels[..., EOS] | labels[..., PAD]
            is_forced &= ~F.pad(is_end, (1, 0))[:, :-1]
        row, column = is_forced.nonzero(as_tuple=True)
        return row, column, self.constraint.token[row, labels[row, column].long().argmax(dim=-1)]

    def _bits_back(self, scores: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(k, w + 1, r): which separators each node can still reach by the end of its segment."""
        back = np.zeros((self.num_segments, self.width + 1, self.num_rows * self.num_states), np.uint8)
        ends = (1 << np.arange(len(self.separators))).astype(np.uint8)[:, None]
        back[:-1, self.width, self.separator_nodes] = ends
        back[-1, self.last_width, self.separator_nodes] = ends
        grouped = self.by_source
        label, target = self.label[grouped.order], self.target[grouped.order]
        for place in reversed(range(self.width)):
            count = self.num_reaching(place)
            values = back[:count, place + 1].take(target, axis=-1) & scores[:count, place].take(label, axis=-1)
            back[:count, place, grouped.keys] = np.bitwise_or.reduceat(values, grouped.starts, axis=-1)
        return back

    def _bits_ahead(self, scores: NDArray[np.uint8], to_end: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(k, w + 1, r): which nodes can be reached from the start of the canvas."""
        ahead = np.zeros((self.num_segments, self.width + 1, self.num_rows * self.num_states), np.uint8)
        now = np.zeros((len(self.separators), self.num_rows), bool)
        now[self.separators == START] = True
        bits = (1 << np.arange(len(self.separators))).astype(np.uint8)
        for segment in range(self.num_segments):
            ahead[segment, 0, self.separator_nodes] = np.where(now, 255, 0)
            ends = np.bitwise_or.reduce(np.where(now, to_end[segment], 0), axis=0)
            now = (ends & bits[:, None]) != 0
        grouped = self.by_target
        label, source = self.label[grouped.order], self.source[grouped.order]
        for place in range(self.width):
            count = self.num_reaching(place)
            values = ahead[:count, place].take(source, axis=-1) & scores[:count, place].take(label, axis=-1)
            ahead[:count, place + 1, grouped.keys] = np.bitwise_or.reduceat(values, grouped.starts, axis=-1)
        return ahead != 0

    def check(self, is_possible: NDArray[np.bool_]) -> None:
        """Raise ConfigError for the rows where no accepted canvas agrees with what is written."""
        if not is_possible.all():
            self.constraint.refuse((~is_possible.reshape(-1)).nonzero()[0].tolist())


def by_column(values: NDArray[Any]) -> NDArray[Any]:
    """(b, l, c) to (l, b x c), contiguous."""
    rows, length, labels = values.shape
    return np.ascontiguousarray(values.transpose(1, 0, 2)).reshape(length, rows * labels)
