"""Losses from their papers' formulas, for methods whose ratio spans a token or a sequence; plain loops in float64.

`fixed` are the new scores where a paper holds them fixed.
"""

from __future__ import annotations

from math import exp, log

from tests.objectives.reference_inputs import (
    GROUPS,
    LENGTH,
    LENGTHS,
    Inputs,
    Scores,
    centred,
    change,
    clipped,
    group,
    k2,
    k3,
    leave_one_out,
    merged,
    normalised,
    rows,
    total_change,
)


def grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        for i in range(LENGTHS[b]):
            gain = clipped(exp(change(x, new, x.old, b, i)), normalised(x, b), 0.2, 0.2)
            total += (-gain + 0.04 * k3(change(x, new, x.ref, b, i))) / LENGTHS[b]
    return total / len(rows())


def dr_grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        for i in range(LENGTHS[b]):
            total -= clipped(exp(change(x, new, x.old, b, i)), centred(x, b), 0.2, 0.2)
    return total / (len(rows()) * LENGTH)


def dapo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        for i in range(LENGTHS[b]):
            total -= clipped(exp(change(x, new, x.old, b, i)), normalised(x, b), 0.2, 0.28)
    return total / sum(LENGTHS[b] for b in rows())


def gspo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        ratio = exp(total_change(x, new, x.old, b) / LENGTHS[b])
        total -= clipped(ratio, normalised(x, b), 3e-4, 4e-4)
    return total / len(rows())


def rloo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        total -= clipped(exp(total_change(x, new, x.old, b)), leave_one_out(x, b), 0.2, 0.2)
        total += 0.05 * sum(k2(change(x, new, x.ref, b, i)) for i in range(LENGTHS[b]))
    return total / len(rows())


def cispo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        for i in range(LENGTHS[b]):
            weight = min(exp(change(x, fixed, x.old, b, i)), 5.0)
            total -= weight * normalised(x, b) * merged(x, new, b, i)
    return total / sum(LENGTHS[b] for b in rows())


def espo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        ratio = exp(total_change(x, new, x.old, b) / LENGTHS[b])
        total -= clipped(ratio, leave_one_out(x, b), 0.2, 0.2)
        total += 3e-3 * total_change(x, new, x.ref, b) ** 2 / (2 * LENGTHS[b])
    return total / len(rows())


def coupled_grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        for i in range(LENGTHS[b]):
            if any(x.score[k][b][i] for k in range(len(new))):
                total -= clipped(exp(change(x, new, x.old, b, i)), leave_one_out(x, b), 0.5, 0.5)
                total += 0.01 * k3(change(x, new, x.ref, b, i))
    return total / sum(LENGTHS[b] for b in rows())


def wd1(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        up = exp(centred(x, b)) / sum(exp(centred(x, c)) for c in group(b))
        down = exp(-centred(x, b)) / sum(exp(-centred(x, c)) for c in group(b))
        total -= (up - down) * sum(merged(x, new, b, i) for i in range(LENGTHS[b]))
    return total / len({GROUPS[b] for b in rows()})


def spg(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The weight of a hidden token is 1 / t, the inverse of its view's level."""
    total = 0.0
    for b in rows():
        means = []
        for k in range(len(new)):
            hidden = [new[k][b][i] for i in range(LENGTHS[b]) if x.score[k][b][i]]
            if hidden:
                means.append(sum(hidden) / len(hidden))
        lower = sum(means) / len(means) if means else 0.0
        powers = []
        for i in range(LENGTHS[b]):
            terms = [exp(new[k][b][i]) ** 1.5 * x.weight[k][b][i] for k in range(len(new)) if x.score[k][b][i]]
            if terms:
                powers.append(log(sum(terms) / len(new)) / 1.5)
        upper = sum(powers) / len(powers) if powers else 0.0
        advantage = centred(x, b)
        bound = lower if advantage >= 0 else 0.5 * upper + 0.5 * lower
        total -= advantage * LENGTHS[b] * bound
    return total / sum(LENGTHS[b] for b in rows())


def rspo(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The gap to the target is held fixed."""

    def score(scores: Scores, b: int) -> float:
        return total_change(x, scores, x.ref, b) / LENGTHS[b]

    total = 0.0
    for b in rows():
        mean = sum(score(fixed, c) for c in group(b)) / len(group(b))
        total -= (centred(x, b) - (score(fixed, b) - mean)) * score(new, b)
    return total / len(rows())


def block_ebpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        ratio = exp(total_change(x, new, x.old, b) / LENGTHS[b])
        total -= clipped(ratio, centred(x, b), 0.2, 0.28)
    return total / len(rows())


def kl_cov(x: Inputs, new: Scores, fixed: Scores) -> float:
    """One token of each group is penalised: that of the largest covariance, at the scores that are held fixed."""
    places = [(b, i) for b in rows() for i in range(LENGTHS[b])]
    penalised = []
    for number in set(GROUPS):
        own = [(b, i) for b, i in places if GROUPS[b] == number]
        likelihoods = [merged(x, fixed, b, i) for b, i in own]
        advantages = [normalised(x, b) for b, _ in own]
        means = [sum(values) / len(own) for values in (likelihoods, advantages)]
        products = [(p - means[0]) * (a - means[1]) for p, a in zip(likelihoods, advantages, strict=True)]
        penalised += [own[products.index(max(products))]] if max(products) > 0 else []
    total = 0.0
    for b, i in places:
        d = change(x, new, x.old, b, i)
        total += -exp(d) * normalised(x, b) + (k2(d) if (b, i) in penalised else 0.0)
    return total / len(places)


def unigrpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The mean over the hidden tokens of each sequence."""
    return hidden_grpo(x, new, beta=0.01)


def causal_denoising_grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    return hidden_grpo(x, new, beta=0.04)


def hidden_grpo(x: Inputs, new: Scores, beta: float) -> float:
    total = 0.0
    for b in rows():
        hidden = [i for i in range(LENGTHS[b]) if x.score[0][b][i]]
        for i in hidden:
            gain = clipped(exp(change(x, new, x.old, b, i)), normalised(x, b), 0.2, 0.2)
            total += (-gain + beta * k3(change(x, new, x.ref, b, i))) / len(hidden)
    return total / len(rows())


def gdsd(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        mean = total_change(x, new, x.old, b) / LENGTHS[b]
        total += (max(-log(1.2), min(mean, log(1.2))) - centred(x, b)) ** 2
    return total / len(rows())


def stable_drl(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The clipped ratios are held fixed, and sum to 1 over a group."""

    def weight(b: int) -> float:
        return max(0.8, min(exp(total_change(x, fixed, x.old, b) / LENGTHS[b]), 1.2))

    total = 0.0
    for b in rows():
        elbo = sum(merged(x, new, b, i) for i in range(LENGTHS[b]))
        total -= weight(b) / sum(weight(c) for c in group(b)) * normalised(x, b) * elbo / LENGTHS[b]
    return total / len({GROUPS[b] for b in rows()})


def bgpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    """Each view is an estimate of its own: linear for good completions, exponential for bad ones."""
    total = 0.0
    for b in rows():
        advantage = normalised(x, b)
        for k in range(len(new)):
            cells = [x.weight[k][b][i] * (new[k][b][i] - x.old[k][b][i]) for i in range(LENGTHS[b]) if x.score[k][b][i]]
            delta = sum(cells) / LENGTHS[b]
            if advantage >= 0:
                gain = advantage * (1 + min(delta, 0.2))
            else:
                gain = max(clipped(exp(delta), advantage, 0.2, 0.2), 3.0 * advantage)
            total -= gain / len(new)
    return total / len(rows())


def advantage_weighted_denoising(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for b in rows():
        elbo = sum(merged(x, new, b, i) for i in range(LENGTHS[b]))
        total -= normalised(x, b) * elbo / LENGTHS[b]
        total += 0.04 * k2(total_change(x, new, x.ref, b)) / LENGTHS[b]
    return total / len(rows())


def espo_unshared(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The first half of the views is for the new scores, the second for the old ones."""
    half = len(new) // 2

    def elbo(scores: Scores, views: range, b: int) -> float:
        cells = [(k, i) for k in views for i in range(LENGTHS[b]) if x.score[k][b][i]]
        return sum(x.weight[k][b][i] * scores[k][b][i] for k, i in cells)

    total = 0.0
    for b in rows():
        change = elbo(new, range(half), b) - elbo(x.old, range(half, len(new)), b)
        total -= clipped(exp(change / LENGTHS[b]), normalised(x, b), 0.2, 0.2)
    return total / len(rows())
