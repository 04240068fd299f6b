"""Loss and gradient of methods from their papers' formulas, in plain Python: loops, float64, no package code.

`python -m tests.objectives.reference` rewrites tests/objectives/fixtures.json, which test_reference.py compares with
the package. Gradients are central differences, in which what a paper detaches is held fixed (the argument `fixed`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import exp, log, sqrt
from pathlib import Path

FIXTURES = Path(__file__).with_name("fixtures.json")
ROWS, LENGTH = 6, 4
GROUPS = [0, 1, 0, 1, 0, 1]
LENGTHS = [4, 3, 2, 4, 1, 3]
VALID = [True, True, True, True, True, False]
STEP = 1e-6
STEP_WEIGHT = 1.5

Scores = list[list[list[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a loss reads: scores, scored positions and weights as [view][row][column]; rewards per row."""

    new: Scores
    old: Scores
    ref: Scores
    score: list[list[list[bool]]]
    weight: Scores
    rewards: list[float]


def make_inputs(num_views: int, seed: int, *, hides_all: bool, spread: float = 0.3) -> Inputs:
    """Random scores around a random likelihood. hides_all: every token is scored in every view, with weight 1.

    spread: of new and old scores; at .3 ratios pass bands of .2, a cap of 5 needs more.
    """
    draw = random.Random(seed)

    def around(spread: float) -> Scores:
        return [
            [[round(base[b][i] + draw.gauss(0, spread), 4) for i in range(LENGTH)] for b in range(ROWS)] for _ in views
        ]

    views = range(num_views)
    base = [[-draw.uniform(0.2, 2.5) for _ in range(LENGTH)] for _ in range(ROWS)]

    def is_scored(b: int, i: int) -> bool:
        return i < LENGTHS[b] and (hides_all or draw.random() < 0.7)

    def weight_of(is_hidden: bool) -> float:
        return (1.0 if hides_all else round(draw.uniform(1.05, 4.0), 3)) * is_hidden

    score = [[[is_scored(b, i) for i in range(LENGTH)] for b in range(ROWS)] for _ in views]
    weight = [[[weight_of(cell) for cell in row] for row in view] for view in score]
    return Inputs(
        new=around(spread),
        old=around(spread),
        ref=around(0.5),
        score=score,
        weight=weight,
        rewards=[round(draw.random(), 3) for _ in range(ROWS)],
    )


def rows() -> list[int]:
    return [b for b in range(ROWS) if VALID[b]]


def group(b: int) -> list[int]:
    return [c for c in rows() if GROUPS[c] == GROUPS[b]]


def centred(x: Inputs, b: int) -> float:
    members = group(b)
    return x.rewards[b] - sum(x.rewards[c] for c in members) / len(members)


def normalised(x: Inputs, b: int) -> float:
    members = group(b)
    mean = sum(x.rewards[c] for c in members) / len(members)
    variance = sum((x.rewards[c] - mean) ** 2 for c in members) / (len(members) - 1)
    return (x.rewards[b] - mean) / (sqrt(variance) + 1e-4)


def leave_one_out(x: Inputs, b: int) -> float:
    others = [x.rewards[c] for c in group(b) if c != b]
    return x.rewards[b] - sum(others) / len(others)


def merged(x: Inputs, scores: Scores, b: int, i: int) -> float:
    """Weighted sum over views of a token's log-probability."""
    return sum(x.weight[k][b][i] * scores[k][b][i] for k in range(len(scores)) if x.score[k][b][i])


def change(x: Inputs, new: Scores, other: Scores, b: int, i: int) -> float:
    return merged(x, new, b, i) - merged(x, other, b, i)


def total_change(x: Inputs, new: Scores, other: Scores, b: int) -> float:
    return sum(change(x, new, other, b, i) for i in range(LENGTHS[b]))


def clipped(ratio: float, advantage: float, low: float, high: float) -> float:
    return min(ratio * advantage, max(1 - low, min(ratio, 1 + high)) * advantage)


def k2(d: float) -> float:
    return d * d / 2


def k3(d: float) -> float:
    return exp(-d) - 1 + d


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


def egspo(x: Inputs, new: Scores, fixed: Scores) -> float:
    """A view is a step, whose ratio is that of all that it scores."""
    total = 0.0
    for b in rows():
        for k in range(len(new)):
            columns = [i for i in range(LENGTHS[b]) if x.score[k][b][i]]
            if columns:
                ratio = exp(sum(new[k][b][i] - x.old[k][b][i] for i in columns))
                total -= STEP_WEIGHT * clipped(ratio, centred(x, b), 0.2, 0.2) / LENGTHS[b]
    return total / len(rows())


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
    for group in set(GROUPS):
        own = [(b, i) for b, i in places if GROUPS[b] == group]
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


# Method: (formula, number of views, whether each token is scored in every view).
METHODS: dict[str, tuple[Callable[[Inputs, Scores, Scores], float], int, bool]] = {
    "grpo": (grpo, 1, True),
    "dr_grpo": (dr_grpo, 1, True),
    "dapo": (dapo, 1, True),
    "gspo": (gspo, 1, True),
    "rloo": (rloo, 1, True),
    "cispo": (cispo, 1, True),
    "espo": (espo, 4, False),
    "coupled_grpo": (coupled_grpo, 3, False),
    "wd1": (wd1, 1, True),
    "spg": (spg, 2, False),
    "egspo": (egspo, 3, False),
    "rspo": (rspo, 4, False),
    "block_ebpo": (block_ebpo, 4, False),
    "kl_cov": (kl_cov, 1, True),
    "informed_espo": (espo, 4, False),
}
# Methods whose views are denoising steps, with the weight of a step in the loss.
STEPWISE = ("egspo",)


# Methods whose bound lies far from 1.
SPREAD = {"cispo": 1.2, "egspo": 0.2}


def gradient(formula: Callable[[Inputs, Scores, Scores], float], x: Inputs) -> Scores:
    """Central differences in every score."""

    def shifted(k: int, b: int, i: int, step: float) -> float:
        new = [[list(row) for row in view] for view in x.new]
        new[k][b][i] += step
        return formula(x, new, x.new)

    def slope(k: int, b: int, i: int) -> float:
        return round((shifted(k, b, i, STEP) - shifted(k, b, i, -STEP)) / (2 * STEP), 9)

    return [[[slope(k, b, i) for i in range(LENGTH)] for b in range(ROWS)] for k in range(len(x.new))]


def main() -> None:
    """Write the fixtures."""
    cases = {}
    for seed, (name, (formula, num_views, hides_all)) in enumerate(METHODS.items()):
        x = make_inputs(num_views, seed, hides_all=hides_all, spread=SPREAD.get(name, 0.3))
        cases[name] = {**asdict(x), "loss": formula(x, x.new, x.new), "gradient": gradient(formula, x)}
    lines = [f"{json.dumps(name)}:{json.dumps(case, separators=(',', ':'))}" for name, case in cases.items()]
    FIXTURES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
