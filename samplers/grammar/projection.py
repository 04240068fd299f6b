"""What a step's tokens are drawn from: the model's distribution, or its projection on the canvases a grammar accepts.

Legend: b rows of the step, n columns asked about, l canvas, c labels, m sampled positions, v vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import NEVER, TEXT, Constraint
from samplers.grammar.automaton import Automata
from samplers.grammar.forward_backward import ForwardBackward
from samplers.loop.sampling import TOKEN, WITHIN, entropy, log_odds, pick, uniform, uniform_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The model's prediction at some columns of partly masked canvases.

    Attributes:
        logits: The model's logits, untempered.
        columns: Columns that they are for.
        canvas: What the model read.
        is_masked: Which columns of the canvas were masked.
        temperature: Temperature at which tokens are drawn; 0 takes the most likely ones.
    """

    logits: Float[Tensor, "b n v"]
    columns: Int[Tensor, "b n"]
    canvas: Int[Tensor, "b l"]
    is_masked: Bool[Tensor, "b l"]
    temperature: float

    @property
    def tempered(self) -> Float[Tensor, "b n v"]:
        """Logits over the temperature; at 0 the untempered ones."""
        return self.logits if self.is_untempered else self.logits / self.temperature

    @property
    def is_untempered(self) -> bool:
        """True where the temperature leaves the distribution as it is."""
        return self.temperature in (0.0, 1.0)

    def untempered(self) -> Prediction:
        """The same at temperature 1."""
        return replace(self, temperature=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What keys the noise of a draw.

    Attributes:
        seed: Seed of the run.
        row_ids: Id of each row.
        step: One number, or each row's own.
    """

    seed: int
    row_ids: Int[Tensor, " b"]
    step: int | Int[Tensor, " b"]

    def at(self, row: Int[Tensor, " m"], column: Int[Tensor, " m"], stream: int) -> Float[Tensor, " m"]:
        """Uniforms at these rows and columns."""
        step = self.step[row] if isinstance(self.step, Tensor) else self.step
        return uniform_at(self.seed, self.row_ids[row], column, step, stream)

    def everywhere(self, length: int, stream: int) -> Float[Tensor, "b l"]:
        """Uniforms at every column of every row."""
        return uniform(self.seed, self.row_ids, torch.arange(length), self.step, stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Tokens at chosen positions, row by row in column order.

    Attributes:
        log_probs: Of each token in what it was drawn from.
        entropy: Of that distribution, in nats; rules rank by the untempered one.
    """

    row: Int[Tensor, " m"]
    column: Int[Tensor, " m"]
    tokens: Int[Tensor, " m"]
    log_probs: Float[Tensor, " m"]
    entropy: Float[Tensor, " m"]


class StepDistribution:
    """What a rule ranks by, and the draw. Statistics are untempered and computed when asked for."""

    @functools.cached_property
    def logits(self) -> Float[Tensor, "b n v"]:
        """Unnormalised log-probability of each token; under a grammar, of its marginal."""
        raise NotImplementedError

    @functools.cached_property
    def log_odds(self) -> Float[Tensor, "b n"]:
        """Log-odds of the most likely token."""
        return log_odds(self.logits)

    def entropy(self, chosen: Bool[Tensor, "b n"]) -> Float[Tensor, " m"]:
        """Entropy in nats at the chosen positions, row by row."""
        return entropy(self.logits[chosen])

    def draw(self, chosen: Bool[Tensor, "b n"], keys: Keys) -> Draw:
        """Draw the tokens of the chosen positions."""
        raise NotImplementedError


class Unasked(StepDistribution):
    """Stands in before the model is asked, for a rule that may idle."""

    @functools.cached_property
    def logits(self) -> Float[Tensor, "b n v"]:
        """Raise ConfigError."""
        raise ConfigError(
            "may_idle=True: `choose` runs before the model, and this one reads its distribution. Use noise, quota, "
            "progress and memory; or remove may_idle to read log_odds, entropy and logits."
        )


class Unconstrained(StepDistribution):
    """No grammar: positions are independent given the canvas. Its logits are on the model's device.

    Args:
        prediction: The model's prediction.
        truncate: Shortens the tempered logits of sampled positions (top-k and the like); None keeps all.
    """

    def __init__(self, prediction: Prediction, truncate: Callable[[Tensor], Tensor] | None = None) -> None:
        self.logits, self.columns, self.temperature = prediction.logits, prediction.columns, prediction.temperature
        self.truncate = truncate

    def draw(self, chosen: Bool[Tensor, "b n"], keys: Keys) -> Draw:
        """Draw each position on its own."""
        row, place = chosen.nonzero(as_tuple=True)
        column = self.columns[row, place]
        logits, temperature = self.logits[row, place], self.temperature
        if self.truncate is not None and temperature > 0:
            logits, temperature = self.truncate(logits / temperature), 1.0
        tokens, log_probs = pick(logits, temperature, keys.at(row, column, TOKEN))
        spread = entropy(logits, temperature)
        return Draw(row=row, column=column, tokens=tokens, log_probs=log_probs, entropy=spread)


class _Accepted(StepDistribution):
    """All tokens of a step come from one accepted canvas: drawn from the posterior, or the best one at temperature 0.

    Rules rank by the untempered distribution at any temperature, since a low one would make all positions look certain;
    at temperature 0 log-probabilities are untempered, too.
    """

    def __init__(self, constraint: Constraint, rest: Bool[Tensor, "b v"], prediction: Prediction) -> None:
        self.constraint, self.prediction, self.temperature = constraint, prediction, prediction.temperature
        self.tempered = prediction.tempered
        self.text = self.tempered.masked_fill(~rest[:, None], -torch.inf)

    def draw(self, chosen: Bool[Tensor, "b n"], keys: Keys) -> Draw:
        """Draw the labels of one accepted canvas, then tokens within them."""
        sequence = self._sequence(keys)
        row, place = chosen.nonzero(as_tuple=True)
        column = self.prediction.columns[row, place]
        label = sequence[row, column]
        tokens, is_text = self.constraint.token[row, label], label == TEXT
        if is_text.any():
            noise = keys.at(row[is_text], column[is_text], WITHIN)
            within = self.text[row[is_text], place[is_text]]
            tokens[is_text] = pick(within, 0.0 if self.temperature == 0 else 1.0, noise)[0]
        weight = self.tempered[row, place].gather(1, tokens[:, None]).squeeze(1)
        log_probs = self._log_probs(row, column, sequence, weight)
        spread = self._tempered_entropy(chosen)
        return Draw(row=row, column=column, tokens=tokens, log_probs=log_probs, entropy=spread)

    def _tempered_entropy(self, chosen: Bool[Tensor, "b n"]) -> Float[Tensor, " m"]:
        """Entropy in nats of the marginals at the temperature of the draws."""
        raise NotImplementedError

    def _sequence(self, keys: Keys) -> Int[Tensor, "b l"]:
        """Labels of one accepted canvas a row."""
        raise NotImplementedError

    def _log_probs(self, row: Tensor, column: Tensor, sequence: Tensor, weight: Tensor) -> Float[Tensor, " m"]:
        """Of each position's token given those left of it.

        Args:
            weight: The token's tempered logit.
        """
        raise NotImplementedError


class Constrained(_Accepted):
    """A grammar on the whole canvas. Every masked position must be asked about: what fits depends on all of them."""

    def __init__(self, automata: Automata, prediction: Prediction) -> None:
        super().__init__(automata.constraint, automata.rest, prediction)
        self.automata = automata
        self.best_text, index = self.text.max(dim=-1, keepdim=True)
        self.other_text = self.text.scatter(-1, index, -torch.inf).logsumexp(dim=-1).double()
        self.best_text = self.best_text.squeeze(-1).double()
        self.of_labels = self._of_labels(torch.logaddexp(self.best_text, self.other_text))
        self.sums = ForwardBackward(automata, self._scores(self.of_labels))
        self.beta = self.sums.beta()
        self.untempered = None if prediction.is_untempered else Constrained(automata, prediction.untempered())

    def _of_labels(self, of_text: Float[Tensor, "b n"]) -> Float[Tensor, "b n c"]:
        """`Constraint.open_scores`, with this weight of TEXT."""
        token = self.constraint.token
        index = token.clamp(min=0)[:, None].expand(-1, self.tempered.shape[1], -1)
        scores = self.tempered.gather(-1, index).double().masked_fill((token < 0)[:, None], NEVER)
        scores[..., TEXT] = of_text
        return scores.clamp(min=NEVER)

    def _scores(self, of_labels: Float[Tensor, "b n c"]) -> Float[Tensor, "b l c"]:
        asked = self.prediction
        return self.constraint.scores(of_labels, asked.columns, asked.canvas, asked.is_masked)

    @functools.cached_property
    def marginals(self) -> Float[Tensor, "b n c"]:
        """Log posterior probability of each label."""
        columns = self.prediction.columns
        used = columns.unique()
        found = self.sums.marginals(self.beta, used.numpy())
        place = torch.searchsorted(used, columns.contiguous())
        return found.gather(1, place[..., None].expand(-1, -1, found.shape[-1]))

    @functools.cached_property
    def logits(self) -> Float[Tensor, "b n v"]:
        """Log marginal probability of each token."""
        if self.untempered is not None:
            return self.untempered.logits
        return self.constraint.token_log_marginals(self.tempered, self.of_labels, self.marginals)

    @functools.cached_property
    def log_odds(self) -> Float[Tensor, "b n"]:
        """Log-odds of the most likely token, from those of the labels: no sum over the vocabulary."""
        if self.untempered is not None:
            return self.untempered.log_odds
        shift = self.marginals[..., TEXT] - self.of_labels[..., TEXT]
        parts = [self.marginals[..., TEXT + 1 :], (self.best_text + shift)[..., None]]
        tokens = torch.cat([*parts, (self.other_text + shift)[..., None]], dim=-1).clamp(min=NEVER)
        # The last entry stands for many tokens, none of which is likelier than the best of them.
        best, index = tokens[..., :-1].max(dim=-1, keepdim=True)
        others = tokens.scatter(-1, index, -torch.inf).logsumexp(dim=-1)
        return (best.squeeze(-1) - others).float()

    def entropy(self, chosen: Bool[Tensor, "b n"]) -> Float[Tensor, " m"]:
        """Entropy in nats: of the label, and of the token where the label is TEXT."""
        return (self.untempered or self)._tempered_entropy(chosen)

    def _tempered_entropy(self, chosen: Bool[Tensor, "b n"]) -> Float[Tensor, " m"]:
        labels = self.marginals[chosen]
        of_labels = -(labels.exp() * labels.clamp(min=-1e4)).sum(dim=-1)
        within = self.text[chosen].log_softmax(dim=-1)
        of_text = -(within.exp() * within.clamp(min=-1e4)).sum(dim=-1).nan_to_num()
        return (of_labels + labels[..., TEXT].exp() * of_text).float()

    def _sequence(self, keys: Keys) -> Int[Tensor, "b l"]:
        if self.temperature > 0:
            return self.sums.sample(self.beta, keys.everywhere(self.prediction.canvas.shape[1], TOKEN))
        return ForwardBackward(self.automata, self._scores(self._of_labels(self.best_text)), is_max=True).best()

    def _log_probs(self, row: Tensor, column: Tensor, sequence: Tensor, weight: Tensor) -> Float[Tensor, " m"]:
        log_probs = torch.empty(len(row))
        if len(row):
            order = (row * sequence.shape[1] + column).argsort()
            parts = (part[order].numpy() for part in (row, column, sequence[row, column], weight.double()))
            log_probs[order] = torch.from_numpy(self.sums.set_log_probs(self.beta, *parts)).float()
        return log_probs


class ConstrainedUpTo(_Accepted):
    """`Constrained` for the block family, whose policy scores the columns before `unscored_from` only.

    Every masked position before that column must be asked about; of the others only that they can be filled at all
    counts. Uses the reference implementation in `dllm_rl.likelihood.constraint`.
    """

    def __init__(self, constraint: Constraint, prediction: Prediction, unscored_from: int) -> None:
        super().__init__(constraint, constraint.rest(), prediction)
        self.unscored_from = torch.full((len(prediction.canvas),), unscored_from)
        self.of_labels = constraint.open_scores(self.tempered)
        self.scores = self._scores(self.of_labels)
        self.beta = constraint.backward(self.scores, unscored_from=self.unscored_from)
        constraint.check(self.beta)

    def _scores(self, of_labels: Float[Tensor, "b n c"]) -> Float[Tensor, "b l c"]:
        asked = self.prediction
        return self.constraint.scores(of_labels, asked.columns, asked.canvas, asked.is_masked, self.unscored_from)

    @functools.cached_property
    def logits(self) -> Float[Tensor, "b n v"]:
        """Log marginal probability of each token."""
        if self.prediction.is_untempered:
            return self._marginals()
        return ConstrainedUpTo(self.constraint, self.prediction.untempered(), int(self.unscored_from[0])).logits

    def _tempered_entropy(self, chosen: Bool[Tensor, "b n"]) -> Float[Tensor, " m"]:
        return entropy((self.logits if self.prediction.is_untempered else self._marginals())[chosen])

    def _marginals(self) -> Float[Tensor, "b n v"]:
        """Log marginal probability of each token at the temperature of the draws."""
        asked, constraint = self.prediction, self.constraint
        marginals = constraint.marginals(self.scores, constraint.forward(self.scores), self.beta)
        index = asked.columns[..., None].expand(-1, -1, marginals.shape[-1])
        return constraint.token_log_marginals(self.tempered, self.of_labels, marginals.gather(1, index))

    def _sequence(self, keys: Keys) -> Int[Tensor, "b l"]:
        if self.temperature > 0:
            noise = keys.everywhere(self.prediction.canvas.shape[1], TOKEN)
            return self.constraint.sequence(self.scores, self.beta, noise)
        scores = self._scores(self.constraint.open_scores(self.tempered, is_max=True))
        return self.constraint.sequence(scores, self.constraint.backward(scores, is_max=True), None)

    def _log_probs(self, row: Tensor, column: Tensor, sequence: Tensor, weight: Tensor) -> Float[Tensor, " m"]:
        chosen, weights = torch.zeros_like(self.prediction.is_masked), weight.new_zeros(sequence.shape)
        chosen[row, column] = True
        weights[row, column] = weight
        found = self.constraint.set_log_probs(self.scores, self.beta, chosen, sequence, weights)
        return found[row, column].float()


def project(
    automata: Automata | None,
    prediction: Prediction,
    *,
    unscored_from: int | None = None,
    truncate: Callable[[Tensor], Tensor] | None = None,
) -> StepDistribution:
    """Return what a step ranks by and draws from.

    Args:
        automata: Automata of the rows; None for the model's own distribution.
        prediction: The model's prediction.
        unscored_from: First column that the model does not score yet; None if it scores all.
        truncate: Shortens the tempered logits of sampled positions; without a grammar only.
    """
    if automata is None:
        return Unconstrained(prediction, truncate)
    # Automata are walked on the CPU.
    prediction = replace(prediction, logits=prediction.logits.cpu())
    if unscored_from is not None and unscored_from < prediction.canvas.shape[1]:
        return ConstrainedUpTo(automata.constraint, prediction, unscored_from)
    return Constrained(automata, prediction)
