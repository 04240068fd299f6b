"""The fast forward-backward gives what the plain sums of `likelihood.constraint` give, line by line or in one piece."""

from __future__ import annotations

import pytest
import torch

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import TEXT
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.testing.policies import PAGES, PLANS
from samplers.grammar.automaton import Automata
from samplers.grammar.compile import batch, compile_page
from samplers.grammar.forward_backward import ForwardBackward
from samplers.grammar.projection import Constrained, Prediction
from samplers.loop.sampling import entropy, log_odds

ROWS = (0, 1, 2, 0)
CANVASES = {"aligned": {}, "last line cut short": {"canvas_length": 38}, "free-running": {"line_width": None}}


class State:
    """A canvas half written with accepted tokens, random laws at its masks, and everything plainly computed."""

    def __init__(self, policy, seed, sharpness):
        generator = torch.Generator().manual_seed(seed)
        self.constraint = batch([compile_page(PAGES[row], policy.canvas) for row in ROWS], policy)
        self.canvas = torch.tensor([policy.canvas.encode(PLANS[row]) for row in ROWS])
        self.is_masked = torch.rand(self.canvas.shape, generator=generator) < 0.7
        length = self.canvas.shape[1]
        self.columns = torch.arange(length).expand(len(ROWS), -1)
        logits = torch.randn(*self.canvas.shape, policy.vocab_size, generator=generator) * sharpness
        self.logits = logits.masked_fill(policy._banned, -torch.inf)
        of_open = self.constraint.open_scores(self.logits)
        self.scores = self.constraint.scores(of_open, self.columns, self.canvas, self.is_masked)
        self.beta = self.constraint.backward(self.scores)
        alpha = self.constraint.forward(self.scores)
        self.marginals = self.constraint.marginals(self.scores, alpha, self.beta)
        self.log_marginals = self.constraint.token_log_marginals(self.logits, of_open, self.marginals)
        self.automata = Automata(self.constraint)

    def projection(self, temperature=1.0):
        return Constrained(self.automata, self.prediction(temperature))

    def prediction(self, temperature=1.0, row=slice(None)):
        return Prediction(
            logits=self.logits[row],
            columns=self.columns[row],
            canvas=self.canvas[row],
            is_masked=self.is_masked[row],
            temperature=temperature,
        )


@pytest.fixture(params=CANVASES)
def state(request, tiny_policies):
    policy = tiny_policies["masked"]
    facts = PolicyFacts(**{**policy.facts.to_dict(), **CANVASES[request.param]})
    return State(type(policy)(policy.model, policy.tokenizer, facts), seed=5, sharpness=3.0)


def likely(values):
    return values.masked_fill(values < -200, -200.0)


def test_reachable_labels_and_marginals(state):
    plain = state.constraint.reachable(state.canvas, state.is_masked)
    assert torch.equal(state.automata.reachable(state.canvas, state.is_masked), plain)
    fast = state.projection().marginals
    torch.testing.assert_close(likely(fast), likely(state.marginals), atol=1e-5, rtol=0)


def test_statistics_of_the_projected_distributions(state):
    fast, open_ = state.projection(), state.is_masked
    odds = log_odds(state.log_marginals)[open_].clamp(-200, 200)
    torch.testing.assert_close(fast.log_odds[open_].clamp(-200, 200), odds, atol=1e-3, rtol=1e-4)
    assert (odds < 200).any()
    torch.testing.assert_close(fast.entropy(open_), entropy(state.log_marginals)[open_], atol=1e-4, rtol=0)
    torch.testing.assert_close(likely(fast.logits), likely(state.log_marginals), atol=1e-3, rtol=0)


def test_sequences(state):
    noise = torch.rand(state.canvas.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sums = ForwardBackward(state.automata, state.scores)
    assert torch.equal(sums.sample(sums.beta(), noise), state.constraint.sequence(state.scores, state.beta, noise))
    of_open = state.constraint.open_scores(state.logits, is_max=True)
    scores = state.constraint.scores(of_open, state.columns, state.canvas, state.is_masked)
    best = state.constraint.sequence(scores, state.constraint.backward(scores, is_max=True), None)
    assert torch.equal(ForwardBackward(state.automata, scores, is_max=True).best(), best)


def test_log_probability_of_a_set(state):
    sums = ForwardBackward(state.automata, state.scores)
    noise = torch.full(state.canvas.shape, 0.4, dtype=torch.float64)
    labels = sums.sample(sums.beta(), noise)
    chosen = state.is_masked & (torch.arange(labels.shape[1]) % 3 > 0)
    weight = state.constraint.open_scores(state.logits).gather(2, labels[..., None]).squeeze(-1)
    plain = state.constraint.set_log_probs(state.scores, state.beta, chosen, labels, weight)
    row, column = chosen.nonzero(as_tuple=True)
    places = (part.numpy() for part in (row, column, labels[row, column], weight[row, column]))
    fast = torch.from_numpy(sums.set_log_probs(sums.beta(), *places))
    torch.testing.assert_close(fast, plain[row, column], atol=1e-6, rtol=0)
    assert (labels[row, column] == TEXT).any()


def test_a_contradiction_is_an_error(state):
    wrong = replace_first_line_with_its_end(state.canvas)
    with pytest.raises(ConfigError, match=r"accepts no canvas in rows \[1\]"):
        state.automata.reachable(wrong, torch.zeros_like(wrong, dtype=torch.bool))


def replace_first_line_with_its_end(canvas):
    wrong = canvas.clone()
    wrong[1, 0] = wrong[1, 1]
    return wrong


def test_sharp_distributions_do_not_underflow(tiny_policies):
    sharp = State(tiny_policies["masked"], seed=2, sharpness=400.0)
    fast = ForwardBackward(sharp.automata, sharp.scores)
    plain = sharp.constraint.backward(sharp.scores)[:, 0, 0]
    torch.testing.assert_close(torch.from_numpy(fast.log_total), plain, atol=1e-6, rtol=1e-9)


def test_rows_of_a_batch_do_not_meet(state):
    alone = Automata(state.constraint.rows(torch.tensor([2])))
    one = Constrained(alone, state.prediction(row=slice(2, 3)))
    torch.testing.assert_close(likely(one.marginals[0]), likely(state.projection().marginals[2]), atol=1e-9, rtol=0)
