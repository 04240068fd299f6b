"""The projection on accepted canvases against plain enumeration of every canvas."""

from __future__ import annotations

import itertools

import pytest
import torch

from dllm_rl.likelihood.constraint import ACCEPT, NUM_FIXED_LABELS, START, TEXT, Constraint

VOCABULARY, LENGTH = 6, 5  # ids: 0 PAD, 1 EOS, 2 and 3 tokens of their own, 4 and 5 text


def automaton() -> Constraint:
    """((2 text* 3) | (3 2))* EOS PAD*, one row."""
    edges = [
        (START, 5, 2),
        (2, TEXT, 2),
        (2, 6, START),
        (START, 6, 3),
        (3, 5, START),
        (START, 1, ACCEPT),
        (ACCEPT, 2, ACCEPT),
    ]
    source, label, target = torch.tensor(edges).T[:, None]
    token = torch.tensor([[-1, 1, 0, -1, -1, 2, 3]])
    assert token.shape[1] == NUM_FIXED_LABELS + 2
    is_text = torch.tensor([False, False, False, False, True, True])
    is_legal = torch.ones(LENGTH, NUM_FIXED_LABELS, dtype=torch.bool)
    return Constraint(
        source=source, target=target, label=label, token=token, is_text=is_text, is_legal=is_legal, num_states=5
    )


def accepts(ids) -> bool:
    state = "line"
    moves = {
        ("line", 2): "open", ("open", 4): "open", ("open", 5): "open", ("open", 3): "line",
        ("line", 3): "swap", ("swap", 2): "line", ("line", 1): "end", ("end", 0): "end",
    }  # fmt: skip
    for token in ids:
        state = moves.get((state, token))
        if state is None:
            return False
    return state == "end"


def laws(seed: int, temperature: float = 1.0):
    return torch.randn(1, LENGTH, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3 / temperature


def enumerate_(log_p, canvas, masked):
    """(canvas, weight) of every accepted canvas that agrees with what is written."""
    found = {}
    for ids in itertools.product(range(VOCABULARY), repeat=LENGTH):
        agrees = all(masked[i] or ids[i] == canvas[i] for i in range(LENGTH))
        if agrees and accepts(ids):
            found[ids] = sum(log_p[0, i, ids[i]].item() for i in range(LENGTH) if masked[i])
    return found


CASES = [
    ([0] * 5, [True] * 5),
    ([0, 4, 0, 0, 0], [True, False, True, True, True]),
    ([2, 0, 0, 1, 0], [False, True, True, False, True]),
]


def prepared(log_p, canvas, masked, *, is_max=False):
    constraint = automaton()
    ids, is_masked = torch.tensor([canvas]), torch.tensor([masked])
    columns = torch.arange(LENGTH)[None]
    scores = constraint.scores(constraint.open_scores(log_p, is_max=is_max), columns, ids, is_masked)
    return constraint, scores, constraint.backward(scores, is_max=is_max)


@pytest.mark.parametrize(("canvas", "masked"), CASES)
def test_sums_marginals_and_best_path_equal_enumeration(canvas, masked):
    log_p = laws(0)
    found = enumerate_(log_p, canvas, masked)
    constraint, scores, beta = prepared(log_p, canvas, masked)
    weights = torch.tensor(list(found.values()), dtype=torch.float64)
    torch.testing.assert_close(beta[0, 0, START], weights.logsumexp(0), atol=1e-6, rtol=0)
    of_open = constraint.open_scores(log_p)
    marginals = constraint.marginals(scores, constraint.forward(scores), beta)
    mine = constraint.token_log_marginals(log_p, of_open, marginals)[0].exp()
    theirs = torch.zeros(LENGTH, VOCABULARY, dtype=torch.float64)
    for ids, weight in zip(found, weights.softmax(0), strict=True):
        theirs[torch.arange(LENGTH), list(ids)] += weight
    open_ = torch.tensor(masked)
    torch.testing.assert_close(mine[open_].double(), theirs[open_], atol=1e-5, rtol=0)
    _, max_scores, max_beta = prepared(log_p, canvas, masked, is_max=True)
    best = constraint.sequence(max_scores, max_beta, None)
    expected = constraint.labels_of(torch.tensor([max(found, key=found.get)]))
    assert torch.equal(best, expected)


@pytest.mark.parametrize(("canvas", "masked"), CASES)
@pytest.mark.parametrize("seed", range(4))
def test_log_probability_of_a_set_equals_enumeration(canvas, masked, seed):
    log_p = laws(seed)
    found = enumerate_(log_p, canvas, masked)
    constraint, scores, beta = prepared(log_p, canvas, masked)
    generator = torch.Generator().manual_seed(seed)
    for ids in list(found)[:12]:
        chosen = (torch.rand(1, LENGTH, generator=generator) < 0.5) & torch.tensor([masked])
        tokens = torch.tensor([ids])
        weight = log_p.gather(-1, tokens[..., None]).squeeze(-1)
        terms = constraint.set_log_probs(scores, beta, chosen, constraint.labels_of(tokens), weight)
        same = [
            weight for other, weight in found.items() if all(other[i] == ids[i] for i in range(LENGTH) if chosen[0, i])
        ]
        total = torch.tensor(list(found.values()), dtype=torch.float64).logsumexp(0)
        joint = torch.tensor(same, dtype=torch.float64).logsumexp(0) - total
        torch.testing.assert_close(terms.sum(), joint, atol=1e-6, rtol=0)
        assert (terms[~chosen] == 0).all()
        assert (terms <= 1e-9).all()


def test_paths_are_drawn_from_the_posterior():
    log_p, (canvas, masked) = laws(1), CASES[0]
    found = enumerate_(log_p, canvas, masked)
    constraint, scores, beta = prepared(log_p, canvas, masked)
    draws = 4000
    many = constraint.rows(torch.zeros(draws, dtype=torch.long))
    noise = torch.rand(draws, LENGTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels = many.sequence(scores.expand(draws, -1, -1), beta.expand(draws, -1, -1), noise)
    expected: dict[tuple[int, ...], float] = {}
    total = torch.tensor(list(found.values()), dtype=torch.float64).logsumexp(0).item()
    for ids, weight in found.items():
        key = tuple(constraint.labels_of(torch.tensor([ids]))[0].tolist())
        expected[key] = expected.get(key, 0.0) + torch.tensor(weight - total).exp().item()
    counts = dict.fromkeys(expected, 0)
    for row in labels.tolist():
        counts[tuple(row)] += 1
    big = [key for key, share in expected.items() if share * draws >= 5]
    statistic = sum((counts[key] - draws * expected[key]) ** 2 / (draws * expected[key]) for key in big)
    assert statistic < len(big) + 4 * (2 * len(big)) ** 0.5


def test_reachable_labels_equal_enumeration():
    for canvas, masked in CASES:
        found = enumerate_(laws(0), canvas, masked)
        constraint = automaton()
        mine = constraint.reachable(torch.tensor([canvas]), torch.tensor([masked]))[0]
        for column in range(LENGTH):
            labels = {constraint.labels_of(torch.tensor([ids]))[0, column].item() for ids in found}
            assert set(mine[column].nonzero().flatten().tolist()) == labels


def test_a_contradiction_is_an_error():
    with pytest.raises(Exception, match="accepts no canvas"):
        automaton().reachable(torch.tensor([[3, 3, 0, 0, 0]]), torch.tensor([[False, False, True, True, True]]))


def test_left_to_right_probabilities_sum_to_one():
    log_p, constraint = laws(3), automaton()
    found = enumerate_(log_p, *CASES[0])
    ids = torch.tensor(list(found))
    many = constraint.rows(torch.zeros(len(ids), dtype=torch.long))
    total = many.next_token_log_probs(log_p.expand(len(ids), -1, -1), ids).sum(1).exp().sum()
    torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-5, rtol=0)
