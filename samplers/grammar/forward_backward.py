"""Forward-backward over accepted canvases in NumPy: sums, maxima, posterior samples, log-probabilities of tokens.

The same quantities as `likelihood.constraint`'s, which are the definition and have gradients; a test holds them equal.
Legend as in `samplers.grammar.automaton`.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dllm_rl.likelihood.constraint import ACCEPT, NEVER, START
from samplers.grammar.automaton import Automata, Floats, by_column


def _log_sum(values: Floats, axis: int) -> Floats:
    top = values.max(axis=axis, keepdims=True)
    return np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)


class ForwardBackward:
    """Forward-backward sums over one set of label scores (`Constraint.scores`).

    Args:
        automata: Automata of the rows.
        scores: Log weight of each label at each column.
        is_max: Whether maxima are taken instead of sums, for the heaviest canvas.
    """

    def __init__(self, automata: Automata, scores: Float[Tensor, "b l c"], *, is_max: bool = False) -> None:
        self.automata, self.is_max = automata, is_max
        self.scores = automata.segments(by_column(scores.numpy()), NEVER)
        self.back = self._backward()
        self.to_end = self.back[:, 0][:, :, automata.separator_nodes]
        self.ends = self._scan_ends()

    def _backward(self) -> Floats:
        """(k, w + 1, t, r): log weight of going on from a node to each way to end the segment."""
        own = self.automata
        grouped, num_separators = own.by_source, len(own.separators)
        back = np.full((own.num_segments, own.width + 1, num_separators, own.num_rows * own.num_states), NEVER)
        for index in range(num_separators):
            back[:-1, own.width, index, own.separator_nodes[index]] = 0.0
            back[-1, own.last_width, index, own.separator_nodes[index]] = 0.0
        label, target = own.label[grouped.order], own.target[grouped.order]
        reduce = grouped.largest if self.is_max else grouped.log_sum
        for place in reversed(range(own.width)):
            count = own.num_reaching(place)
            values = back[:count, place + 1].take(target, axis=-1)
            values += self.scores[:count, place, None].take(label, axis=-1)
            back[:count, place, :, grouped.keys] = reduce(values).transpose(2, 0, 1)
        return back

    def _scan_ends(self) -> Floats:
        """(k + 1, t, b): log weight of going on from each separator to acceptance."""
        own = self.automata
        ends = np.full((own.num_segments + 1, len(own.separators), own.num_rows), NEVER)
        ends[-1, own.separators == ACCEPT] = 0.0
        for segment in reversed(range(own.num_segments)):
            values = self.to_end[segment] + ends[segment + 1][:, None]
            ends[segment] = values.max(axis=0) if self.is_max else _log_sum(values, 0)
        own.check(ends[0][own.separators == START] > NEVER / 2)
        return ends

    @property
    def log_total(self) -> Floats:
        """(b,): log weight of all accepted canvases."""
        return self.ends[0][self.automata.separators == START][0]

    def beta(self) -> Floats:
        """(k, w + 1, r): log weight of going on from each node to acceptance."""
        values = self.back + self.ends[1:, None][..., self.automata.row_of_node]
        return values.max(axis=2) if self.is_max else _log_sum(values, 2)

    def alpha(self) -> Floats:
        """(k, w + 1, r): log weight of reaching each node from the start."""
        own = self.automata
        alpha = np.full((own.num_segments, own.width + 1, own.num_rows * own.num_states), NEVER)
        now = np.full((len(own.separators), own.num_rows), NEVER)
        now[own.separators == START] = 0.0
        for segment in range(own.num_segments):
            alpha[segment, 0, own.separator_nodes] = now
            now = _log_sum(self.to_end[segment] + now, 1)
        return self._forward(alpha[:, :, None], self.scores)[:, :, 0]

    def _forward(self, alpha: Floats, scores: Floats) -> Floats:
        """Fill (k, w + 1, t, r) from its first column on."""
        own = self.automata
        grouped = own.by_target
        label, source = own.label[grouped.order], own.source[grouped.order]
        for place in range(own.width):
            count = own.num_reaching(place)
            values = alpha[:count, place].take(source, axis=-1)
            values += scores[:count, place, None].take(label, axis=-1)
            alpha[:count, place + 1, :, grouped.keys] = grouped.log_sum(values).transpose(2, 0, 1)
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
        num_separators, used = len(own.separators), np.unique(segment)
        ahead = np.full((own.num_segments, own.width + 1, num_separators, own.num_rows * own.num_states), NEVER)
        for index in range(num_separators):
            ahead[:, 0, index, own.separator_nodes[index]] = 0.0
        self._forward_some(ahead, clamped, used)
        starts = self._clamped_starts(ahead, used)
        nodes = row[:, None] * own.num_states + np.arange(own.num_states)
        here = ahead[segment[:, None], place[:, None] + 1, :, nodes] + starts[segment, :, row][:, None]
        after = _log_sum((here + beta[segment[:, None], place[:, None] + 1, nodes][..., None]).reshape(len(row), -1), 1)
        is_first = np.concatenate([[True], row[1:] != row[:-1]])
        before = np.where(is_first, self.log_total[row], np.concatenate([[0.0], after[:-1]]))
        return after - before

    def _forward_some(self, ahead: Floats, scores: Floats, used: NDArray[np.int64]) -> None:
        """Go only through the segments where something is clamped."""
        own = self.automata
        grouped = own.by_target
        label, source = own.label[grouped.order], own.source[grouped.order]
        for place in range(own.width):
            segments = used[: np.searchsorted(used, own.num_reaching(place))]
            values = ahead[segments, place].take(source, axis=-1)
            values += scores[segments, place, None].take(label, axis=-1)
            new = np.full((len(segments), len(own.separators), ahead.shape[-1]), NEVER)
            new[..., grouped.keys] = grouped.log_sum(values)
            ahead[segments, place + 1] = new

    def _clamped_starts(self, ahead: Floats, used: NDArray[np.int64]) -> Floats:
        """(k, t, b): log weight of reaching each separator from the start, with the clamped tokens left of it."""
        own = self.automata
        is_used = np.isin(np.arange(own.num_segments), used)
        starts = np.full((own.num_segments + 1, len(own.separators), own.num_rows), NEVER)
        starts[0, own.separators == START] = 0.0
        for segment in range(own.num_segments):
            end = own.last_width if segment + 1 == own.num_segments else own.width
            passing = self.to_end[segment].swapaxes(0, 1)
            if is_used[segment]:
                passing = ahead[segment, end][:, own.separator_nodes]
            starts[segment + 1] = _log_sum(starts[segment][:, None] + passing, 0)
        return starts[:-1]

    def best(self) -> Int[Tensor, "b l"]:
        """Labels of the heaviest accepted canvas; only with `is_max`."""
        own = self.automata
        rows = np.arange(own.num_rows)
        begin, end = self._best_separators(rows)
        node = own.separator_nodes[begin, rows]
        beta = np.take_along_axis(self.back, end[:, own.row_of_node][:, None, None], axis=2)[:, :, 0]
        labels = np.zeros((own.num_segments, own.width, own.num_rows), np.int64)
        for place in range(own.width):
            count = own.num_reaching(place)
            segment = np.arange(count)[:, None, None]
            edge = own.out_edges[node[:count]]
            values = beta[segment, place + 1, own.target[edge]] + self.scores[segment, place, own.label[edge]]
            best = np.where(edge < 0, -np.inf, values).argmax(axis=-1)[..., None]
            taken = np.take_along_axis(edge, best, axis=-1)[..., 0]
            labels[:count, place], node[:count] = own.edge_label[taken], own.target[taken]
        return self._as_rows(labels)

    def _best_separators(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index of the separator at which each segment of the heaviest canvas begins and ends, each (k, b)."""
        own = self.automata
        end = np.zeros((own.num_segments, own.num_rows), np.int64)
        begin = np.zeros_like(end)
        now = np.full(own.num_rows, own.separators.tolist().index(START))
        for segment in range(own.num_segments):
            begin[segment] = now
            now = (self.to_end[segment][:, now, rows] + self.ends[segment + 1]).argmax(axis=0)
            end[segment] = now
        return begin, end

    def sample(self, beta: Floats, noise: Float[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """Labels of one accepted canvas a row, sampled from the posterior by these uniforms (inverse CDF)."""
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
