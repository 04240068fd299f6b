"""Losses from their papers' formulas, for methods whose views are denoising steps; plain loops in float64.

Every step weighs STEP_WEIGHT: what the sampling of steps makes of it is tested in test_methods.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp

from tests.objectives.reference_inputs import (
    LENGTHS,
    STEP_WEIGHT,
    Inputs,
    Scores,
    centred,
    centred_of,
    clipped,
    k2,
    k3,
    leave_one_out,
    normalised,
    normalised_of,
    rows,
)

Advantage = Callable[[Inputs, int], float]


def events(x: Inputs) -> Iterator[tuple[int, int, int]]:
    """(view, row, column) of everything that is scored on a valid row."""
    for b in rows():
        for k in range(len(x.score)):
            yield from ((k, b, i) for i in range(LENGTHS[b]) if x.score[k][b][i])


def event_grpo(x: Inputs, new: Scores, advantage: Advantage, penalty: Callable[[float], float]) -> float:
    """One clipped ratio an event, divided by the row's tokens."""
    total = 0.0
    for k, b, i in events(x):
        gain = clipped(exp(new[k][b][i] - x.old[k][b][i]), advantage(x, b), 0.2, 0.2)
        total += STEP_WEIGHT * (-gain + penalty(new[k][b][i] - x.ref[k][b][i])) / LENGTHS[b]
    return total / len(rows())


def cj_grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    return event_grpo(x, new, normalised, lambda d: 0.04 * k2(d))


def tracerl(x: Inputs, new: Scores, fixed: Scores) -> float:
    return event_grpo(x, new, normalised, lambda d: 0.01 * k3(d))


def agrpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    return event_grpo(x, new, centred, lambda d: 0.0)


def just_grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    return event_grpo(x, new, normalised, lambda d: 0.0)


def mask_aware_grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The score of an event is that of its position and, where it was written, of its token."""
    return event_grpo(x, new, leave_one_out, lambda d: 0.0)


def flow_grpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    total = 0.0
    for k, b, i in events(x):
        advantage = max(-5.0, min(normalised(x, b), 5.0))
        total += STEP_WEIGHT * (-advantage * new[k][b][i] + 0.04 * k2(new[k][b][i] - x.ref[k][b][i])) / LENGTHS[b]
    return total / len(rows())


def egspo(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The ratio of a step is that of all that it scores."""
    return step_grpo(x, new, lambda b, k: centred(x, b))


def egspo_sa(x: Inputs, new: Scores, fixed: Scores) -> float:
    """The return of a step is (R + R - r_s) / 2."""

    def advantage(b: int, k: int) -> float:
        returns = [(2 * final - steps[k]) / 2 for final, steps in zip(x.rewards, x.step_rewards, strict=True)]
        return centred_of(returns, b)

    return step_grpo(x, new, advantage)


def step_grpo(x: Inputs, new: Scores, advantage: Callable[[int, int], float]) -> float:
    total = 0.0
    for b in rows():
        for k in range(len(new)):
            columns = [i for i in range(LENGTHS[b]) if x.score[k][b][i]]
            if columns:
                ratio = exp(sum(new[k][b][i] - x.old[k][b][i] for i in columns))
                total -= STEP_WEIGHT * clipped(ratio, advantage(b, k), 0.2, 0.2) / LENGTHS[b]
    return total / len(rows())


def mdpo(x: Inputs, new: Scores, fixed: Scores) -> float:
    """y_s = r_s - r_(s-1) + mean of the r_t of a row's own steps that follow; where none does, r_s itself."""

    def gain_of(b: int, k: int) -> float:
        steps = x.step_rewards[b]
        later = [steps[t] for t in range(k + 1, len(steps)) if any(x.score[t][b])] or [steps[k]]
        return steps[k] - (steps[k - 1] if k else 0.0) + sum(later) / len(later)

    def advantage(b: int, k: int) -> float:
        return normalised_of([gain_of(c, k) for c in range(len(x.step_rewards))], b)

    total = 0.0
    for b in rows():
        alive = [k for k in range(len(new)) if any(x.score[k][b])]
        for k in alive:
            columns = [i for i in range(LENGTHS[b]) if x.score[k][b][i]]
            for i in columns:
                total -= STEP_WEIGHT * clipped(exp(new[k][b][i] - x.old[k][b][i]), advantage(b, k), 0.2, 0.2)
            total += 0.02 * sum(k2(new[k][b][i] - x.ref[k][b][i]) for i in columns) / len(columns) / len(alive)
    return total / len(rows())
