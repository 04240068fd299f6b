"""The laws that a step's tokens come from: the model's own, or their projection on what a grammar accepts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.constraint import NEVER, TEXT, Constraint
from samplers.grammar.automaton import Automata
from samplers.grammar.walk import Walk
from samplers.loop.sampling import TOKEN, WITHIN, entropy, log_odds, pick, uniform, uniform_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Tokens at chosen positions, row by row in column order, with the log-probability of each."""

    row: Int[Tensor, " m"]
    column: Int[Tensor, " m"]
    tokens: Int[Tensor, " m"]
    log_probs: Float[Tensor, " m"]


class Projection:
    """What a rule ranks by, and the draw. Statistics are of the open positions and are computed when asked for.

    laws: log marginals, unnormalised. odds, entropy: see `samplers.loop.sampling`.
    """

    @functools.cached_property
    def laws(self) -> Float[Tensor, "b n v"]:
        """Log marginal probability of each token."""
        raise NotImplementedError

    @functools.cached_property
    def odds(self) -> Float[Tensor, "b n"]:
        """Log-odds of the most likely token."""
        return log_odds(self.laws)

    def entropy(self, chosen: Bool[Tensor, "b n"]) -> Float[Tensor, " m"]:
        """Entropy in nats at the chosen open positions, row by row."""
        return entropy(self.laws[chosen])

    def draw(self, chosen: Bool[Tensor, "b n"], seed: int, row_ids: Int[Tensor, " b"], step: int | Tensor) -> Draw:
        """Draw the tokens of the chosen open positions. step: a number, or each row's own."""
        raise NotImplementedError


class Free(Projection):
    """No constraint: positions are independent given the canvas."""

    def __init__(
        self,
        logits: Float[Tensor, "b n v"],
        columns: Int[Tensor, "b n"],
        temperature: float,
        truncate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.laws, self.columns, self.temperature, self.truncate = logits, columns, temperature, truncate

    def draw(self, chosen: Bool[Tensor, "b n"], seed: int, row_ids: Int[Tensor, " b"], step: int | Tensor) -> Draw:
        """Each position on its own."""
        row, place = chosen.nonzero(as_tuple=True)
        column = self.columns[row, place]
        noise = uniform_at(seed, row_ids[row], column, _of_rows(step, row), TOKEN)
        laws, temperature = self.laws[row, place], self.temperature
        if self.truncate is not None and temperature > 0:
            laws, temperature = self.truncate(laws / temperature), 1.0
        tokens, log_probs = pick(laws, temperature, noise)
        return Draw(row=row, column=column, tokens=tokens, log_probs=log_probs)


class Constrained(Projection):
    """All tokens of a step come from one accepted canvas: drawn from the posterior, or the best one at temperature 0.

    At temperature 0 log-probabilities are those of the untempered law; what rules rank by is the untempered law at any
    temperature, since a low one would make all positions look certain. Every masked position must be among the open
    ones, since what may stand there depends on all of them.
    """

    def __init__(
        self,
        automata: Automata,
        logits: Float[Tensor, "b n v"],
        columns: Int[Tensor, "b n"],
        canvas: Int[Tensor, "b l"],
        is_masked: Bool[Tensor, "b l"],
        temperature: float,
    ) -> None:
        self.automata, self.constraint, self.columns = automata, automata.constraint, columns
        self.temperature, self.canvas, self.is_masked = temperature, canvas, is_masked
        self.logits = logits if temperature in (0.0, 1.0) else logits / temperature
        self.text = self.logits.masked_fill(~automata.rest[:, None], -torch.inf)
        self.best_text, index = self.text.max(dim=-1, keepdim=True)
        self.other_text = self.text.scatter(-1, index, -torch.inf).logsumexp(dim=-1).double()
        self.best_text = self.best_text.squeeze(-1).double()
        self.of_open = self._of_open(torch.logaddexp(self.best_text, self.other_text))
        self.walk = Walk(automata, self.constraint.scores(self.of_open, columns, canvas, is_masked))
        self.beta = self.walk.beta()
        self.untempered: Constrained | None = None
        if temperature not in (0.0, 1.0):
            self.untempered = Constrained(automata, logits, columns, canvas, is_masked, 1.0)

    def _of_open(self, of_text: Float[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        """As `Constraint.open_scores`, with this weight of TEXT."""
        token = self.constraint.token
        index = token.clamp(min=0)[:, None].expand(-1, self.logits.shape[1], -1)
        scores = self.logits.gather(-1, index).double().masked_fill((token < 0)[:, None], NEVER)
        scores[..., TEXT] = of_text
        return scores.clamp(min=NEVER)

    @functools.cached_property
    def marginals(self) -> Float[Tensor, "b n c"]:
        """Log posterior probability of each label at the open positions."""
        used = self.columns.unique()
        found = self.walk.marginals(self.beta, used.numpy())
        place = torch.searchsorted(used, self.columns.contiguous())
        return found.gather(1, place[..., None].expand(-1, -1, found.shape[-1]))

    @functools.cached_property
    def laws(self) -> Float[Tensor, "b n v"]:
        """Log marginal probability of each token."""
        if self.untempered is not None:
            return self.untempered.laws
        return self.constraint.token_laws(self.logits, self.of_open, self.marginals)

    @functools.cached_property
    def odds(self) -> Float[Tensor, "b n"]:
        """Log-odds of the most likely token, from those of the labels: no sum over the vocabulary."""
        if self.untempered is not None:
            return self.untempered.odds
        shift = self.marginals[..., TEXT] - self.of_open[..., TEXT]
        parts = [self.marginals[..., TEXT + 1 :], (self.best_text + shift)[..., None]]
        tokens = torch.cat([*parts, (self.other_text + shift)[..., None]], dim=-1).clamp(min=NEVER)
        # The last entry stands for many tokens, none of which is likelier than the best of them.
        best, index = tokens[..., :-1].max(dim=-1, keepdim=True)
        others = tokens.scatter(-1, index, -torch.inf).logsumexp(dim=-1)
        return (best.squeeze(-1) - others).float()

    def entropy(self, chosen: Bool[Tensor, "b n"]) -> Float[Tensor, " m"]:
        """Entropy in nats: of the label, and of the token where the label is TEXT."""
        if self.untempered is not None:
            return self.untempered.entropy(chosen)
        labels = self.marginals[chosen]
        of_labels = -(labels.exp() * labels.clamp(min=-1e4)).sum(dim=-1)
        within = self.text[chosen].log_softmax(dim=-1)
        of_text = -(within.exp() * within.clamp(min=-1e4)).sum(dim=-1).nan_to_num()
        return (of_labels + labels[..., TEXT].exp() * of_text).float()

    def draw(self, chosen: Bool[Tensor, "b n"], seed: int, row_ids: Int[Tensor, " b"], step: int | Tensor) -> Draw:
        """Labels along one path, then tokens within them."""
        labels = self._path(seed, row_ids, step)
        row, place = chosen.nonzero(as_tuple=True)
        column = self.columns[row, place]
        label = labels[row, column]
        is_text = label == TEXT
        tokens = self.constraint.token[row, label]
        if is_text.any():
            drawn = row[is_text]
            noise = uniform_at(seed, row_ids[drawn], column[is_text], _of_rows(step, drawn), WITHIN)
            within = self.text[drawn, place[is_text]]
            tokens[is_text] = pick(within, 0.0 if self.temperature == 0 else 1.0, noise)[0]
        weight = self.logits[row, place].gather(1, tokens[:, None]).squeeze(1)
        order = (row * self.canvas.shape[1] + column).argsort()
        log_probs = torch.empty(len(row))
        if len(row):
            terms = self.walk.set_log_probs(
                self.beta, *(part[order].numpy() for part in (row, column, label, weight.double()))
            )
            log_probs[order] = torch.from_numpy(terms).float()
        return Draw(row=row, column=column, tokens=tokens, log_probs=log_probs)

    def _path(self, seed: int, row_ids: Tensor, step: int | Tensor) -> Tensor:
        if self.temperature > 0:
            noise = uniform(seed, row_ids, torch.arange(self.canvas.shape[1]), step, TOKEN)
            return self.walk.drawn_path(self.beta, noise)
        best = self._of_open(self.best_text)
        scores = self.constraint.scores(best, self.columns, self.canvas, self.is_masked)
        return Walk(self.automata, scores, is_max=True).best_path()


class ConstrainedBefore(Projection):
    """As `Constrained` for a policy that can only be asked up to column `end` (block family), by the definitions.

    Every masked position before `end` must be among the open ones; behind it counts only that the grammar has a way on.
    """

    def __init__(
        self,
        constraint: Constraint,
        logits: Float[Tensor, "b n v"],
        columns: Int[Tensor, "b n"],
        canvas: Int[Tensor, "b l"],
        is_masked: Bool[Tensor, "b l"],
        temperature: float,
        end: int,
    ) -> None:
        self.constraint, self.columns, self.temperature = constraint, columns, temperature
        self.canvas, self.is_masked = canvas, is_masked
        self.end = torch.full((len(canvas),), end)
        self.logits = logits if temperature in (0.0, 1.0) else logits / temperature
        of_open = constraint.open_scores(self.logits)
        self.scores = constraint.scores(of_open, columns, canvas, is_masked, self.end)
        self.beta = constraint.backward(self.scores, end=self.end)
        constraint.check(self.beta)
        # Rules rank by the untempered law, here as everywhere.
        if temperature not in (0.0, 1.0):
            self.laws = ConstrainedBefore(constraint, logits, columns, canvas, is_masked, 1.0, end).laws
            return
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
    automata: Automata | None,
    logits: Float[Tensor, "b n v"],
    columns: Int[Tensor, "b n"],
    canvas: Int[Tensor, "b l"],
    is_masked: Bool[Tensor, "b l"],
    temperature: float,
    truncate: Callable[[Tensor], Tensor] | None = None,
    end: int | None = None,
) -> Projection:
    """The laws to rank by and draw from; automata None: the model's, whose tempered laws `truncate` may shorten.

    end: columns from there on have no law yet.
    """
    if automata is None:
        return Free(logits, columns, temperature, truncate)
    if end is not None and end < canvas.shape[1]:
        return ConstrainedBefore(automata.constraint, logits, columns, canvas, is_masked, temperature, end)
    return Constrained(automata, logits, columns, canvas, is_masked, temperature)
