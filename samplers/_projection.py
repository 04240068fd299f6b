"""The laws that a step's tokens come from: the model's own, or their projection on what a grammar accepts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.constraint import TEXT, Constraint
from samplers._noise import TOKEN, WITHIN, uniform, uniform_at
from samplers._statistics import pick


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Tokens at chosen positions, row by row in column order, with the log-probability of each."""

    row: Int[Tensor, " m"]
    column: Int[Tensor, " m"]
    tokens: Int[Tensor, " m"]
    log_probs: Float[Tensor, " m"]


class Projection(Protocol):
    """laws: (b, n, v) log marginals (unnormalised) of the open positions, by which a rule may rank."""

    laws: Float[Tensor, "b n v"]

    def draw(self, chosen: Bool[Tensor, "b n"], seed: int, row_ids: Int[Tensor, " b"], step: int | Tensor) -> Draw:
        """Draw the tokens of the chosen open positions. step: a number, or each row's own."""
        ...


class Free:
    """No constraint: positions are independent given the canvas."""

    def __init__(self, logits: Float[Tensor, "b n v"], columns: Int[Tensor, "b n"], temperature: float) -> None:
        self.laws, self.columns, self.temperature = logits, columns, temperature

    def draw(self, chosen: Bool[Tensor, "b n"], seed: int, row_ids: Int[Tensor, " b"], step: int | Tensor) -> Draw:
        """Each position on its own."""
        row, place = chosen.nonzero(as_tuple=True)
        column = self.columns[row, place]
        noise = uniform_at(seed, row_ids[row], column, _of_rows(step, row), TOKEN)
        tokens, log_probs = pick(self.laws[row, place], self.temperature, noise)
        return Draw(row=row, column=column, tokens=tokens, log_probs=log_probs)


class Constrained:
    """All tokens of a step come from one accepted canvas: drawn from the posterior, or the best one at temperature 0.

    At temperature 0 log-probabilities and marginals are those of the untempered law. Every masked position before `end`
    must be among the open ones, since what may stand there depends on all of them; behind it counts only that the
    grammar has a way on.
    """

    def __init__(
        self,
        constraint: Constraint,
        logits: Float[Tensor, "b n v"],
        columns: Int[Tensor, "b n"],
        canvas: Int[Tensor, "b l"],
        is_masked: Bool[Tensor, "b l"],
        temperature: float,
        end: int | None,
    ) -> None:
        self.constraint, self.columns, self.temperature = constraint, columns, temperature
        self.canvas, self.is_masked = canvas, is_masked
        self.end = None if end is None else torch.full((len(canvas),), end)
        self.logits = logits if temperature in (0.0, 1.0) else logits / temperature
        of_open = constraint.open_scores(self.logits)
        self.scores = constraint.scores(of_open, columns, canvas, is_masked, self.end)
        self.beta = constraint.backward(self.scores, end=self.end)
        constraint.check(self.beta)
        marginals = constraint.marginals(self.scores, constraint.forward(self.scores), self.beta)
        index = columns[..., None].expand(-1, -1, marginals.shape[-1])
        self.laws = constraint.token_laws(self.logits, of_open, marginals.gather(1, index))

    def draw(self, chosen: Bool[Tensor, "b n"], seed: int, row_ids: Int[Tensor, " b"], step: int | Tensor) -> Draw:
        """Labels along one path, then tokens within them."""
        labels = self._path(seed, row_ids, step)
        row, place = chosen.nonzero(as_tuple=True)
        column = self.columns[row, place]
        label, laws = labels[row, column], self.logits[row, place]
        within = laws.masked_fill(~self.constraint.rest()[row], -torch.inf)
        is_text = label == TEXT
        tokens = self.constraint.token[row, label]
        if is_text.any():
            drawn = row[is_text]
            noise = uniform_at(seed, row_ids[drawn], column[is_text], _of_rows(step, drawn), WITHIN)
            tokens[is_text] = pick(within[is_text], 0.0 if self.temperature == 0 else 1.0, noise)[0]
        where = torch.zeros_like(self.is_masked)
        weight = torch.zeros(self.canvas.shape)
        where[row, column] = True
        weight[row, column] = laws.gather(1, tokens[:, None]).squeeze(1)
        log_probs = self.constraint.set_log_probs(self.scores, self.beta, where, labels, weight)
        return Draw(row=row, column=column, tokens=tokens, log_probs=log_probs[row, column].float())

    def _path(self, seed: int, row_ids: Tensor, step: int | Tensor) -> Tensor:
        if self.temperature > 0:
            noise = uniform(seed, row_ids, torch.arange(self.canvas.shape[1]), step, TOKEN)
            return self.constraint.path(self.scores, self.beta, noise)
        best = self.constraint.open_scores(self.logits, is_max=True)
        scores = self.constraint.scores(best, self.columns, self.canvas, self.is_masked, self.end)
        return self.constraint.path(scores, self.constraint.backward(scores, is_max=True), None)


def _of_rows(step: int | Tensor, row: Int[Tensor, " m"]) -> int | Tensor:
    return step[row] if isinstance(step, Tensor) else step


def project(
    constraint: Constraint | None,
    logits: Float[Tensor, "b n v"],
    columns: Int[Tensor, "b n"],
    canvas: Int[Tensor, "b l"],
    is_masked: Bool[Tensor, "b l"],
    temperature: float,
    end: int | None = None,
) -> Projection:
    """The laws to rank by and draw from; constraint None: the model's. end: columns from there on have no law yet."""
    if constraint is None:
        return Free(logits, columns, temperature)
    return Constrained(constraint, logits, columns, canvas, is_masked, temperature, end)
