"""What the reference formulas read, and the parts that they share: in plain Python, float64, no package code."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import exp, sqrt

ROWS, LENGTH = 6, 4
GROUPS = [0, 1, 0, 1, 0, 1]
LENGTHS = [4, 3, 2, 4, 1, 3]
VALID = [True, True, True, True, True, False]
STEP_WEIGHT = 1.5

Scores = list[list[list[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a loss reads: scores, scored positions and weights as [view][row][column]; rewards per row, and per step."""

    new: Scores
    old: Scores
    ref: Scores
    score: list[list[list[bool]]]
    weight: Scores
    rewards: list[float]
    step_rewards: list[list[float]]


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
        step_rewards=[[round(draw.random(), 3) for _ in views] for _ in range(ROWS)],
    )


def rows() -> list[int]:
    return [b for b in range(ROWS) if VALID[b]]


def group(b: int) -> list[int]:
    return [c for c in rows() if GROUPS[c] == GROUPS[b]]


def centred_of(rewards: list[float], b: int) -> float:
    members = group(b)
    return rewards[b] - sum(rewards[c] for c in members) / len(members)


def normalised_of(rewards: list[float], b: int) -> float:
    members = group(b)
    variance = sum(centred_of(rewards, c) ** 2 for c in members) / (len(members) - 1)
    return centred_of(rewards, b) / (sqrt(variance) + 1e-4)


def centred(x: Inputs, b: int) -> float:
    return centred_of(x.rewards, b)


def normalised(x: Inputs, b: int) -> float:
    return normalised_of(x.rewards, b)


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
