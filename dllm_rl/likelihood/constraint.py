"""Distributions over canvases that a finite automaton accepts: marginals, samples, exact log-probabilities.

Why a constraint can hold for any order of writing: let A be the accepted canvases that agree with what is written. If
all tokens of one step come from the *same* accepted canvas y in A, then y stays in A after the step, and masking tokens
again only enlarges A. So A is never empty and the last canvas is accepted, for any weights, rule and batch.

Edges carry labels. Label TEXT stands for every token that may stand in a value and has no label of its own; each other
label is one token. A canvas's weight is the product of the model's probabilities at the masked positions;
forward-backward sums over canvases (in float64 and in log space, as random weights span thousands of nats).

Legend: b rows, l canvas, n open positions of a row, e edges, q states, c labels, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError

TEXT, EOS, PAD, NEWLINE, FILL = range(5)
NUM_FIXED_LABELS = 5
START, ACCEPT = 0, 1
NEVER = -1e30


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """One automaton a row, padded to common sizes. A canvas is accepted if its labels lead from START to ACCEPT.

    Attributes:
        source, target, label: Of each edge; unused edges run from the last state, which nothing reaches, to itself.
        token: Id of each label, -1 for TEXT and unused ones.
        is_text: Ids that may stand in values.
            Where EOS and PAD are one token it has the label EOS, and PAD has none.
        is_legal: Which of (any content, EOS, PAD, line break, FILL) may stand at a column.
        width, separators: Between two lines of `width` columns only the states `separators` are possible; None and
            empty where lines run freely.
    """

    source: Int[Tensor, "b e"]
    target: Int[Tensor, "b e"]
    label: Int[Tensor, "b e"]
    token: Int[Tensor, "b c"]
    is_text: Bool[Tensor, " v"]
    is_legal: Bool[Tensor, "l 5"]
    num_states: int
    width: int | None = None
    separators: tuple[int, ...] = ()

    def rows(self, index: Tensor) -> Constraint:
        """The automata of these rows."""
        source, target, label = self.source[index], self.target[index], self.label[index]
        return replace(self, source=source, target=target, label=label, token=self.token[index])

    def labels_of(self, ids: Int[Tensor, "b l"]) -> Int[Tensor, "b l"]:
        """Label of each token; -1 where no label has it."""
        own = ids[:, :, None] == self.token[:, None, :]
        return torch.where(own.any(dim=-1), own.long().argmax(dim=-1), torch.where(self.is_text[ids], TEXT, -1))

    def rest(self) -> Bool[Tensor, "b v"]:
        """Which ids the label TEXT stands for."""
        rest = self.is_text.repeat(len(self.token), 1)
        row, label = (self.token >= 0).nonzero(as_tuple=True)
        rest[row, self.token[row, label]] = False
        return rest

    def open_scores(self, logits: Float[Tensor, "b n v"], *, is_max: bool = False) -> Float[Tensor, "b n c"]:
        """Log weight of each label under these logits; for TEXT the sum over its tokens, or the largest."""
        text = logits.masked_fill(~self.rest()[:, None], -torch.inf)
        of_text = text.amax(dim=-1) if is_max else text.logsumexp(dim=-1)
        index = self.token.clamp(min=0)[:, None].expand(-1, logits.shape[1], -1)
        scores = logits.gather(-1, index).masked_fill((self.token < 0)[:, None], -torch.inf)
        scores = torch.cat([of_text[..., None], scores[..., 1:]], dim=-1)
        return scores.double().clamp(min=NEVER)

    def scores(
        self,
        open_scores: Float[Tensor, "b n c"],
        columns: Int[Tensor, "b n"],
        canvas: Int[Tensor, "b l"],
        is_masked: Bool[Tensor, "b l"],
        unscored_from: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b l c"]:
        """Log weight of each label at each column: the model's where masked, 0 on the written token elsewhere.

        Args:
            unscored_from: First column that the model does not score yet; there every label weighs 0 (see `backward`).
        """
        labels = self.labels_of(canvas)
        every = torch.arange(self.token.shape[1])
        written = torch.where(labels[..., None] == every, 0.0, NEVER).double()
        index = columns[..., None].expand(-1, -1, len(every))
        scores = torch.where(is_masked[..., None], written.scatter(1, index, open_scores), written)
        if unscored_from is not None:
            is_later = is_masked & (torch.arange(canvas.shape[1]) >= unscored_from[:, None])
            scores = scores.masked_fill(is_later[..., None], 0.0)
        return scores.masked_fill(~self.legal(), NEVER)

    def legal(self) -> Bool[Tensor, "l c"]:
        """Which labels may stand at each column, whatever stands elsewhere."""
        content = self.is_legal[:, :1].expand(-1, self.token.shape[1] - NUM_FIXED_LABELS)
        return torch.cat([self.is_legal, content], dim=1)

    def backward(
        self,
        scores: Float[Tensor, "b l c"],
        *,
        is_max: bool = False,
        unscored_from: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b l1 q"]:
        """Log weight of all ways (or of the best way) to go on from each state to acceptance, before each column.

        Args:
            unscored_from: From this column on only whether there is a way counts (0, else NEVER): blocks that the model
                does not score yet must be possible, and say nothing more.
        """
        reduce = _largest if is_max else _log_sum
        last = torch.full((len(scores), self.num_states), NEVER, dtype=torch.float64)
        last[:, ACCEPT] = 0.0
        betas = [last]
        of_edges = scores.gather(2, self.label[:, None].expand(-1, scores.shape[1], -1))
        for column in reversed(range(scores.shape[1])):
            values = of_edges[:, column] + betas[-1].gather(1, self.target)
            beta = reduce(values, self.source, self.num_states)
            if unscored_from is not None and not is_max:
                best = _largest(values.detach(), self.source, self.num_states)
                beta = torch.where((column >= unscored_from)[:, None], best, beta)
            betas.append(beta)
        return torch.stack(betas[::-1], dim=1)

    def forward(self, scores: Float[Tensor, "b l c"], *, is_max: bool = False) -> Float[Tensor, "b l1 q"]:
        """Log weight of all ways (or of the best way) to reach each state, before each column."""
        reduce = _largest if is_max else _log_sum
        alphas = [self._start(len(scores))]
        of_edges = scores.gather(2, self.label[:, None].expand(-1, scores.shape[1], -1))
        for column in range(scores.shape[1]):
            values = of_edges[:, column] + alphas[-1].gather(1, self.source)
            alphas.append(reduce(values, self.target, self.num_states))
        return torch.stack(alphas, dim=1)

    def _start(self, num_rows: int) -> Tensor:
        alpha = torch.full((num_rows, self.num_states), NEVER, dtype=torch.float64)
        alpha[:, START] = 0.0
        return alpha

    def marginals(
        self, scores: Float[Tensor, "b l c"], alpha: Float[Tensor, "b l1 q"], beta: Float[Tensor, "b l1 q"]
    ) -> Float[Tensor, "b l c"]:
        """Log posterior probability of each label at each column (unnormalised maxima where alpha and beta are)."""
        length = scores.shape[1]
        label, source, target = (
            index[:, None].expand(-1, length, -1) for index in (self.label, self.source, self.target)
        )
        values = scores.gather(2, label) + alpha[:, :-1].gather(2, source) + beta[:, 1:].gather(2, target)
        flat = _log_sum(values.flatten(0, 1), label.flatten(0, 1), scores.shape[2])
        return flat.unflatten(0, (-1, length)) - beta[:, :1, START : START + 1]

    def check(self, beta: Float[Tensor, "b l1 q"]) -> None:
        """Raise ConfigError where no accepted canvas agrees with what is written."""
        bad = (beta[:, 0, START] < NEVER / 2).nonzero().flatten().tolist()
        if bad:
            self.refuse(bad)

    def refuse(self, rows: Sequence[int]) -> NoReturn:
        """Raise ConfigError: no accepted canvas agrees with what is written in these rows."""
        raise ConfigError(
            f"the grammar accepts no canvas in rows {list(rows)}: the page has no button to submit, a line of its plan "
            "does not fit the canvas, or a written token contradicts it. Use a larger canvas, or no grammar."
        )

    def reachable(self, canvas: Int[Tensor, "b l"], is_masked: Bool[Tensor, "b l"]) -> Bool[Tensor, "b l c"]:
        """Which labels an accepted canvas can have at each column, given what is written."""
        width = self.token.shape[1]
        columns = torch.arange(canvas.shape[1]).expand_as(canvas)
        scores = self.scores(torch.zeros(*canvas.shape, width, dtype=torch.float64), columns, canvas, is_masked)
        beta = self.backward(scores, is_max=True)
        self.check(beta)
        return self.marginals(scores, self.forward(scores, is_max=True), beta) > NEVER / 2

    def sequence(
        self, scores: Float[Tensor, "b l c"], beta: Float[Tensor, "b l1 q"], noise: Float[Tensor, "b l"] | None
    ) -> Int[Tensor, "b l"]:
        """Labels of one accepted canvas: a posterior draw by these uniforms, or for None the best (beta of maxima)."""
        state = torch.full((len(scores), 1), START)
        of_edges = scores.gather(2, self.label[:, None].expand(-1, scores.shape[1], -1))
        labels = []
        for column in range(scores.shape[1]):
            values = of_edges[:, column] + beta[:, column + 1].gather(1, self.target)
            values = values.masked_fill(self.source != state, NEVER)
            edge = values.argmax(dim=1, keepdim=True) if noise is None else _invert(values, noise[:, column, None])
            labels.append(self.label.gather(1, edge))
            state = self.target.gather(1, edge)
        return torch.cat(labels, dim=1)

    def set_log_probs(
        self,
        scores: Float[Tensor, "b l c"],
        beta: Float[Tensor, "b l1 q"],
        chosen: Bool[Tensor, "b l"],
        labels: Int[Tensor, "b l"],
        weight: Float[Tensor, "b l"],
    ) -> Float[Tensor, "b l"]:
        """Log-probability of each chosen position's token given the chosen ones before it; 0 elsewhere.

        Args:
            weight: The model's logit of the token. The sum over a row is the exact joint log-probability of the chosen
                set, which must have been chosen without a look at the draw. Differentiable.
        """
        every = torch.arange(scores.shape[2])
        fixed = torch.where(labels[..., None] == every, weight[..., None].double(), NEVER)
        clamped = torch.where(chosen[..., None], fixed, scores).masked_fill(~self.legal(), NEVER)
        of_edges = clamped.gather(2, self.label[:, None].expand(-1, scores.shape[1], -1))
        alpha, before = self._start(len(scores)), beta[:, 0, START]
        terms = []
        for column in range(scores.shape[1]):
            alpha = _log_sum(alpha.gather(1, self.source) + of_edges[:, column], self.target, self.num_states)
            after = (alpha + beta[:, column + 1]).logsumexp(dim=1)
            terms.append(torch.where(chosen[:, column], after - before, 0.0))
            before = after
        return torch.stack(terms, dim=1)

    def token_log_marginals(
        self, logits: Float[Tensor, "b n v"], open_scores: Float[Tensor, "b n c"], marginals: Float[Tensor, "b n c"]
    ) -> Float[Tensor, "b n v"]:
        """Log marginal probability of each token: the label's, divided among its tokens as the model does."""
        shift = (marginals - open_scores)[..., TEXT, None].clamp(min=NEVER).to(logits.dtype)
        tokens = (logits + shift).masked_fill(~self.rest()[:, None], -torch.inf)
        row, label = (self.token >= 0).nonzero(as_tuple=True)
        values = marginals[row, :, label].to(logits.dtype)
        tokens[row, :, self.token[row, label]] = values.masked_fill(values < NEVER / 2, -torch.inf)
        return tokens.masked_fill(tokens < NEVER / 2, -torch.inf)

    def next_states(self, state: Int[Tensor, " b"], ids: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The state after one more token."""
        label = self.labels_of(ids[:, None])
        taken = (self.source == state[:, None]) & (self.label == label)
        return self.target.gather(1, taken.long().argmax(dim=1, keepdim=True)).squeeze(1)

    def allowed(
        self, state: Int[Tensor, " b"], column: int | Int[Tensor, " b"], beta: Float[Tensor, "b l1 q"]
    ) -> Bool[Tensor, "b v"]:
        """Which ids may come next at a column (one for all rows, or each row's own).

        Args:
            beta: What `backward` gives for an unwritten canvas (`unwritten`).
        """
        labels = self._open_labels(state, column, beta)
        ids = self.rest() & labels[:, TEXT, None]
        row, label = (labels & (self.token >= 0)).nonzero(as_tuple=True)
        ids[row, self.token[row, label]] = True
        return ids

    def only_token(
        self, state: Int[Tensor, " b"], column: Int[Tensor, " b"], beta: Float[Tensor, "b l1 q"]
    ) -> Int[Tensor, " b"]:
        """The one id that may come next at each row's column; -1 where there is a choice.

        Args:
            beta: As in `allowed`.
        """
        labels = self._open_labels(state, column, beta)
        is_forced = (labels.sum(dim=1) == 1) & ~labels[:, TEXT]
        token = self.token.gather(1, labels.long().argmax(dim=1, keepdim=True)).squeeze(1)
        return torch.where(is_forced, token, -1)

    def _open_labels(
        self, state: Int[Tensor, " b"], column: int | Int[Tensor, " b"], beta: Float[Tensor, "b l1 q"]
    ) -> Bool[Tensor, "b c"]:
        at = torch.as_tensor(column).expand(len(state))
        legal = self.legal()[at].gather(1, self.label)
        after = beta[torch.arange(len(state)), at + 1].gather(1, self.target)
        is_open = (self.source == state[:, None]) & legal & (after > NEVER / 2)
        return _any_by(is_open, self.label, self.token.shape[1])

    def unwritten(self) -> Float[Tensor, "b l1 q"]:
        """Which states can still lead to acceptance before each column (0, or NEVER) while nothing is written."""
        shape = (len(self.token), *self.legal().shape)
        scores = torch.zeros(shape, dtype=torch.float64).masked_fill(~self.legal(), NEVER)
        beta = self.backward(scores, is_max=True)
        self.check(beta)
        return beta

    def next_token_log_probs(self, logits: Float[Tensor, "b l v"], ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l"]:
        """Left to right: log-probability of each token among those that the grammar allows after the ones before it."""
        beta, state = self.unwritten(), torch.full((len(ids),), START)
        terms = []
        for column in range(ids.shape[1]):
            allowed = self.allowed(state, column, beta)
            step = logits[:, column].masked_fill(~allowed, -torch.inf)
            terms.append(step.gather(1, ids[:, column, None]).squeeze(1) - step.logsumexp(dim=1))
            state = self.next_states(state, ids[:, column])
        return torch.stack(terms, dim=1)


def join(parts: Sequence[Constraint]) -> Constraint:
    """Constraints of the same canvas and tokenizer as one, their rows in order, padded to common sizes."""
    num_states = max(part.num_states for part in parts)
    num_edges = max(part.source.shape[1] for part in parts)
    num_labels = max(part.token.shape[1] for part in parts)

    def padded(tensor: Tensor, width: int, value: int) -> Tensor:
        return torch.nn.functional.pad(tensor, (0, width - tensor.shape[1]), value=value)

    return replace(
        parts[0],
        source=torch.cat([padded(part.source, num_edges, part.num_states - 1) for part in parts]),
        target=torch.cat([padded(part.target, num_edges, part.num_states - 1) for part in parts]),
        label=torch.cat([padded(part.label, num_edges, TEXT) for part in parts]),
        token=torch.cat([padded(part.token, num_labels, -1) for part in parts]),
        num_states=num_states,
    )


def _log_sum(values: Float[Tensor, "b e"], index: Int[Tensor, "b e"], size: int) -> Float[Tensor, "b q"]:
    top = _largest(values.detach(), index, size)
    total = torch.zeros_like(top).scatter_add(1, index, (values - top.gather(1, index)).exp())
    return top + total.clamp(min=1e-300).log()


def _largest(values: Float[Tensor, "b e"], index: Int[Tensor, "b e"], size: int) -> Float[Tensor, "b q"]:
    none = torch.full((len(values), size), NEVER, dtype=torch.float64)
    return none.scatter_reduce(1, index, values, "amax")


def _any_by(flags: Bool[Tensor, "b e"], index: Int[Tensor, "b e"], size: int) -> Bool[Tensor, "b c"]:
    return torch.zeros(len(flags), size, dtype=torch.long).scatter_add(1, index, flags.long()) > 0


def _invert(values: Float[Tensor, "b e"], noise: Float[Tensor, "b 1"]) -> Int[Tensor, "b 1"]:
    """One edge a row by inverse CDF, never one of no weight."""
    weights = (values - values.amax(dim=1, keepdim=True)).exp()
    cumulative = weights.cumsum(dim=1)
    edge = torch.searchsorted(cumulative, noise * cumulative[:, -1:], right=True).clamp(max=values.shape[1] - 1)
    return torch.where(weights.gather(1, edge) > 0, edge, values.argmax(dim=1, keepdim=True))
