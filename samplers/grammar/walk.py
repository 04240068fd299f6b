"""Sums and maxima over all accepted canvases, posterior draws and the log-probability of chosen tokens, by NumPy.

The same quantities as `dllm_rl.constraint`'s, which are the definition and have gradients; a test holds them equal.
Legend as in `samplers.grammar.automaton`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dllm_rl.constraint import ACCEPT, NEVER, START
from samplers.grammar.automaton import Automata, Floats, by_column


def _log_sum(values: Floats, axis: int) -> Floats:
    top = values.max(axis=axis, keepdims=True)
    return np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)


class Walk:
    """One set of label scores (`Constraint.scores`), walked backward; forward and clamped walks follow from it.

    is_max: maxima instead of sums, for the heaviest canvas.
    """

    def __init__(self, automata: Automata, scores: Float[Tensor, "b l c"], *, is_max: bool = False) -> None:
        self.automata, self.is_max = automata, is_max
        self.scores = automata.segments(by_column(scores.numpy()), NEVER)
        self.back = self._backward()
        self.to_end = self.back[:, 0][:, :, automata.cut_nodes]
        self.ends = self._scan_ends()

    def _backward(self) -> Floats:
        """(k, w + 1, t, r): log weight of going on from a node to each way to end the segment."""
        own = self.automata
        grouped, num_cuts = own.by_source, len(own.cuts)
        back = np.full((own.num_segments, own.width + 1, num_cuts, own.num_rows * own.num_states), NEVER)
        for cut in range(num_cuts):
            back[:-1, own.width, cut, own.cut_nodes[cut]] = 0.0
            back[-1, own.last_width, cut, own.cut_nodes[cut]] = 0.0
        label, target = own.label[grouped.order], own.target[grouped.order]
        reduce = grouped.largest if self.is_max else grouped.log_sum
        for place in reversed(range(own.width)):
            alive = own.alive(place)
            values = back[:alive, place + 1].take(target, axis=-1)
            values += self.scores[:alive, place, None].take(label, axis=-1)
            back[:alive, place, :, grouped.keys] = reduce(values).transpose(2, 0, 1)
        return back

    def _scan_ends(self) -> Floats:
        """(k + 1, t, b): log weight of going on from each cut to acceptance."""
        own = self.automata
        ends = np.full((own.num_segments + 1, len(own.cuts), own.num_rows), NEVER)
        ends[-1, own.cuts == ACCEPT] = 0.0
        for segment in reversed(range(own.num_segments)):
            values = self.to_end[segment] + ends[segment + 1][:, None]
            ends[segment] = values.max(axis=0) if self.is_max else _log_sum(values, 0)
        own.check(ends[0][own.cuts == START] > NEVER / 2)
        return ends

    @property
    def log_total(self) -> Floats:
        """(b,): log weight of all accepted canvases."""
        return self.ends[0][self.automata.cuts == START][0]

    def beta(self) -> Floats:
        """(k, w + 1, r): log weight of going on from each node to acceptance."""
        values = self.back + self.ends[1:, None][..., self.automata.row_of_node]
        return values.max(axis=2) if self.is_max else _log_sum(values, 2)

    def alpha(self) -> Floats:
        """(k, w + 1, r): log weight of reaching each node from the start."""
        own = self.automata
        alpha = np.full((own.num_segments, own.width + 1, own.num_rows * own.num_states), NEVER)
        now = np.full((len(own.cuts), own.num_rows), NEVER)
        now[own.cuts == START] = 0.0
        for segment in range(own.num_segments):
            alpha[segment, 0, own.cut_nodes] = now
            now = _log_sum(self.to_end[segment] + now, 1)
        return self._forward(alpha[:, :, None], self.scores)[:, :, 0]

    def _forward(self, alpha: Floats, scores: Floats) -> Floats:
        """Fill (k, w + 1, t, r) from its first column on."""
        own = self.automata
        grouped = own.by_target
        label, source = own.label[grouped.order], own.source[grouped.order]
        for place in range(own.width):
            alive = own.alive(place)
            values = alpha[:alive, place].take(source, axis=-1)
            values += scores[:alive, place, None].take(label, axis=-1)
            alpha[:alive, place + 1, :, grouped.keys] = grouped.log_sum(values).transpose(2, 0, 1)
        return alpha

    def marginals(self, beta: Floats, columns: NDArray[np.int64]) -> Float[Tensor, "b m c"]:
        """Log posterior probability of each label at these columns."""
        own = self.automata
        grouped = own.by_label
        segment, place = columns // own.width, columns % own.width
        alpha = self.alpha()
        order = grouped.order
        values = alpha[segment, place].take(own.source[order], axis=-1)
        values += self.scores[segment, place].take(own.label[order], axis=-1)
        values += beta[segment, place + 1].take(own.target[order], axis=-1)
        found = np.full((len(columns), own.num_rows * own.num_labels), NEVER)
        found[:, grouped.keys] = grouped.log_sum(values)
        by_row = found.reshape(len(columns), own.num_rows, own.num_labels).transpose(1, 0, 2)
        return torch.from_numpy(by_row - self.log_total[:, None, None])

    def set_log_probs(
        self,
        beta: Floats,
        row: NDArray[np.int64],
        column: NDArray[np.int64],
        label: NDArray[np.int64],
        weight: Floats,
    ) -> Floats:
        """As `Constraint.set_log_probs`, at chosen places given row by row from left to right."""
        own = self.automata
        clamped = self.scores.copy()
        segment, place = column // own.width, column % own.width
        for_row = (row * own.num_labels)[:, None] + np.arange(own.num_labels)
        legal = clamped[segment, place, row * own.num_labels + label] > NEVER / 2
        clamped[segment[:, None], place[:, None], for_row] = NEVER
        clamped[segment, place, row * own.num_labels + label] = np.where(legal, weight, NEVER)
        num_cuts, used = len(own.cuts), np.unique(segment)
        ahead = np.full((own.num_segments, own.width + 1, num_cuts, own.num_rows * own.num_states), NEVER)
        for cut in range(num_cuts):
            ahead[:, 0, cut, own.cut_nodes[cut]] = 0.0
        self._forward_some(ahead, clamped, used)
        starts = self._clamped_starts(ahead, used)
        nodes = row[:, None] * own.num_states + np.arange(own.num_states)
        here = ahead[segment[:, None], place[:, None] + 1, :, nodes] + starts[segment, :, row][:, None]
        after = _log_sum((here + beta[segment[:, None], place[:, None] + 1, nodes][..., None]).reshape(len(row), -1), 1)
        is_first = np.concatenate([[True], row[1:] != row[:-1]])
        before = np.where(is_first, self.log_total[row], np.concatenate([[0.0], after[:-1]]))
        return after - before

    def _forward_some(self, ahead: Floats, scores: Floats, used: NDArray[np.int64]) -> None:
        """Walk only the segments where something is clamped."""
        own = self.automata
        grouped = own.by_target
        label, source = own.label[grouped.order], own.source[grouped.order]
        for place in range(own.width):
            alive = used[: np.searchsorted(used, own.alive(place))]
            values = ahead[alive, place].take(source, axis=-1)
            values += scores[alive, place, None].take(label, axis=-1)
            new = np.full((len(alive), len(own.cuts), ahead.shape[-1]), NEVER)
            new[..., grouped.keys] = grouped.log_sum(values)
            ahead[alive, place + 1] = new

    def _clamped_starts(self, ahead: Floats, used: NDArray[np.int64]) -> Floats:
        """(k, t, b): log weight of reaching each cut from the start, with the clamped tokens left of it."""
        own = self.automata
        is_used = np.isin(np.arange(own.num_segments), used)
        starts = np.full((own.num_segments + 1, len(own.cuts), own.num_rows), NEVER)
        starts[0, own.cuts == START] = 0.0
        for segment in range(own.num_segments):
            end = own.last_width if segment + 1 == own.num_segments else own.width
            passing = ahead[segment, end][:, own.cut_nodes] if is_used[segment] else self.to_end[segment].swapaxes(0, 1)
            starts[segment + 1] = _log_sum(starts[segment][:, None] + passing, 0)
        return starts[:-1]

    def best_path(self) -> Int[Tensor, "b l"]:
        """Labels of the heaviest accepted canvas (of a walk over maxima)."""
        own = self.automata
        rows = np.arange(own.num_rows)
        begin, end = self._best_cuts(rows)
        node = own.cut_nodes[begin, rows]
        beta = np.take_along_axis(self.back, end[:, own.row_of_node][:, None, None], axis=2)[:, :, 0]
        labels = np.zeros((own.num_segments, own.width, own.num_rows), np.int64)
        for place in range(own.width):
            alive = own.alive(place)
            segment = np.arange(alive)[:, None, None]
            edge = own.out_edges[node[:alive]]
            values = beta[segment, place + 1, own.target[edge]] + self.scores[segment, place, own.label[edge]]
            best = np.where(edge < 0, -np.inf, values).argmax(axis=-1)[..., None]
            taken = np.take_along_axis(edge, best, axis=-1)[..., 0]
            labels[:alive, place], node[:alive] = own.edge_label[taken], own.target[taken]
        return self._as_rows(labels)

    def _best_cuts(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index of the cut in which each segment of the heaviest canvas begins and ends, each (k, b)."""
        own = self.automata
        end = np.zeros((own.num_segments, own.num_rows), np.int64)
        begin = np.zeros_like(end)
        now = np.full(own.num_rows, own.cuts.tolist().index(START))
        for segment in range(own.num_segments):
            begin[segment] = now
            now = (self.to_end[segment][:, now, rows] + self.ends[segment + 1]).argmax(axis=0)
            end[segment] = now
        return begin, end

    def drawn_path(self, beta: Floats, noise: Float[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """Labels of one accepted canvas a row, drawn from the posterior by these uniforms (inverse CDF)."""
        own = self.automata
        uniforms = noise.numpy()
        node = np.arange(own.num_rows) * own.num_states + START
        labels = np.zeros((own.num_segments, own.width, own.num_rows), np.int64)
        for column in range(own.length):
            segment, place = divmod(column, own.width)
            edge = own.out_edges[node]
            values = beta[segment, place + 1][own.target[edge]] + self.scores[segment, place][own.label[edge]]
            values[edge < 0] = NEVER
            weights = np.exp(values - values.max(axis=1, keepdims=True))
            cumulative = weights.cumsum(axis=1)
            choice = (cumulative <= uniforms[:, column, None] * cumulative[:, -1:]).sum(axis=1, keepdims=True)
            choice = np.minimum(choice, edge.shape[1] - 1)
            is_possible = np.take_along_axis(weights, choice, axis=1) > 0
            choice = np.where(is_possible, choice, values.argmax(axis=1, keepdims=True))
            taken = np.take_along_axis(edge, choice, axis=1)[:, 0]
            labels[segment, place], node = own.edge_label[taken], own.target[taken]
        return self._as_rows(labels)

    def _as_rows(self, labels: NDArray[np.int64]) -> Int[Tensor, "b l"]:
        flat = labels.reshape(-1, self.automata.num_rows)[: self.automata.length]
        return torch.from_numpy(np.ascontiguousarray(flat.T))
