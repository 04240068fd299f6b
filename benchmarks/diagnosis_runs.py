"""Training runs drawn at random, each of a known kind: the curves, before any trainer logs them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from experiments.analysis.collapse import Kind

Curve = np.ndarray


@dataclass(slots=True, kw_only=True)
class Draft:
    """A run in the making: curves by canonical name over the time from 0 to 1.

    Attributes:
        level: Mean success without noise.
    """

    draw: np.random.Generator
    time: Curve
    level: Curve
    noise: float
    scale: float
    offset: float
    columns: dict[str, Curve] = field(default_factory=dict)
    evaluations: Curve | None = None

    def uniform(self, low: float, high: float) -> float:
        return float(self.draw.uniform(low, high))

    def normal(self, spread: float) -> Curve:
        return self.draw.normal(0, spread, len(self.time))

    def ramp(self, start: float, length: float) -> Curve:
        """0 before a time, 1 after it and a while."""
        return np.clip((self.time - start) / max(length, 1e-9), 0, 1)


# Levels of healthy runs, from 0 to 1.


def exponential(draft: Draft) -> Curve:
    low, high = sorted((draft.uniform(0.05, 0.6), draft.uniform(0.3, 0.95)))
    return low + (high - low) * (1 - np.exp(-draft.uniform(1, 8) * draft.time))


def _sigmoid(draft: Draft) -> Curve:
    low, high = draft.uniform(0.02, 0.3), draft.uniform(0.5, 0.95)
    return low + (high - low) / (1 + np.exp(-draft.uniform(8, 30) * (draft.time - draft.uniform(0.2, 0.7))))


def linear(draft: Draft) -> Curve:
    low = draft.uniform(0.1, 0.6)
    return low + draft.uniform(0.02, 0.35) * draft.time


def flat(draft: Draft) -> Curve:
    return np.full(len(draft.time), draft.uniform(0.15, 0.85))


def _slides_a_tenth(draft: Draft) -> Curve:
    high = draft.uniform(0.4, 0.9)
    return high * (1 - draft.uniform(0.03, 0.15) * draft.ramp(draft.uniform(0.1, 0.6), 0.3))


def _dips(draft: Draft) -> Curve:
    """Falls by up to two thirds, for a twentieth of the run or less, and recovers."""
    level, at = exponential(draft), draft.uniform(0.2, 0.85)
    inside = (draft.time >= at) & (draft.time < at + draft.uniform(0.01, 0.05))
    return np.where(inside, level * draft.uniform(0.33, 0.8), level)


def _curriculum(draft: Draft) -> Curve:
    """Harder tasks from some step on cost up to three tenths, which are partly gained again."""
    level, at = exponential(draft), draft.uniform(0.3, 0.7)
    cost = draft.uniform(0.1, 0.3)
    return level * (1 - cost * (draft.time >= at) * (1 - draft.uniform(0.2, 0.8) * draft.ramp(at, 0.3)))


def _sparse(draft: Draft) -> Curve:
    """Seldom rewarded, and slowly more often."""
    return draft.uniform(0.01, 0.03) + draft.uniform(0.03, 0.2) * draft.time**2


def _sawtooth(draft: Draft) -> Curve:
    """Tasks in the same order in each epoch, easy ones first."""
    cycles = draft.uniform(3, 8)
    return exponential(draft) * (1 - draft.uniform(0.05, 0.2) * ((draft.time * cycles) % 1))


def _walk(draft: Draft) -> Curve:
    steps = draft.draw.normal(0, 0.25 / math.sqrt(len(draft.time)), len(draft.time))
    return np.clip(draft.uniform(0.45, 0.65) + np.cumsum(steps), 0.3, 0.95)


def _restarts(draft: Draft) -> Curve:
    """Restarts of the learning rate cost a little, each for a while."""
    level, cycles = exponential(draft), int(draft.draw.integers(2, 5))
    phase = (draft.time * cycles) % 1
    return level * (1 - draft.uniform(0.05, 0.2) * np.exp(-phase * 12) * (draft.time > 1 / cycles))


def _stages(draft: Draft) -> Curve:
    heights = np.sort(draft.draw.uniform(0.1, 0.95, int(draft.draw.integers(3, 6))))
    return heights[np.minimum((draft.time * len(heights)).astype(int), len(heights) - 1)]


HEALTHY_LEVELS: tuple[Callable[[Draft], Curve], ...] = (
    exponential,
    _sigmoid,
    linear,
    flat,
    _slides_a_tenth,
    _dips,
    _curriculum,
    _sparse,
)
HELD_OUT_LEVELS = (_sawtooth, _walk, _restarts, _stages)


def pick(draw: np.random.Generator, levels: Sequence[Callable[[Draft], Curve]]) -> Callable[[Draft], Curve]:
    return levels[int(draw.integers(len(levels)))]


# Falls, from the level of a healthy run.


def falls(draft: Draft) -> tuple[Curve, float]:
    """A level that loses seven tenths or more, at once or over three tenths of the run; and when that begins."""
    level = pick(draft.draw, [exponential, linear, flat])(draft)
    at, length = draft.uniform(0.35, 0.75), draft.uniform(0, 0.2) * draft.draw.integers(0, 2)
    return level * (1 - draft.uniform(0.7, 1.0) * draft.ramp(at, length)), at


def falls_in_waves(draft: Draft) -> tuple[Curve, float]:
    """A fall with a short recovery of up to four tenths in between."""
    level = flat(draft)
    at, again = draft.uniform(0.3, 0.5), draft.uniform(0.7, 0.8)
    lost = draft.ramp(at, 0.03) * draft.uniform(0.75, 0.95)
    inside = (draft.time > again) & (draft.time < again + 0.05)
    return level * (1 - np.where(inside, np.minimum(lost, 0.65), lost)), at


# Runs of each kind: each makes the draft one of the kind.


def _off_policy(draft: Draft, at: float) -> None:
    early = draft.ramp(at - draft.uniform(0.02, 0.1), draft.uniform(0.01, 0.05))
    draft.columns["clip_ratio"] += draft.uniform(0.15, 0.7) * early
    draft.columns["spread"] += draft.uniform(0.8, 3) * early
    draft.columns["ess"] -= draft.uniform(0.3, 0.6) * early
    if draft.draw.random() < 0.7:
        draft.columns["grad_norm"] *= 1 + draft.uniform(5, 40) * early
    draft.columns["entropy"] *= 1 - draft.uniform(0, 0.6) * draft.ramp(at + 0.06, 0.1)


def _concentration(draft: Draft, at: float) -> None:
    early = draft.ramp(at - draft.uniform(0.12, 0.2), 0.08)
    draft.columns["entropy"] *= 1 - draft.uniform(0.75, 0.97) * early
    draft.columns["unique"] *= 1 - draft.uniform(0.5, 0.8) * early
    draft.columns["no_spread"] = np.clip(draft.columns["no_spread"] + 0.5 * draft.ramp(at, 0.1), 0, 1)


def _entropy_explosion(draft: Draft, at: float) -> None:
    early = draft.ramp(at - draft.uniform(0.05, 0.15), draft.uniform(0.03, 0.1))
    draft.columns["entropy"] += draft.uniform(1.5, 6) * early


def _drift(draft: Draft, at: float) -> None:
    early = draft.ramp(at - draft.uniform(0.06, 0.15), draft.uniform(0.02, 0.06))
    is_longer = draft.draw.random() < 0.7
    draft.columns["length"] *= 1 + (draft.uniform(0.8, 3) if is_longer else -draft.uniform(0.6, 0.9)) * early
    draft.columns["parse"] -= draft.uniform(0.5, 0.9) * early
    if is_longer:
        draft.columns["cut"] += (draft.uniform(0.75, 0.98) - draft.columns["cut"]) * early


def _unexplained(draft: Draft, at: float) -> None:
    pass


FALLS: dict[Kind, Callable[[Draft, float], None]] = {
    "off_policy": _off_policy,
    "concentration": _concentration,
    "entropy_explosion": _entropy_explosion,
    "drift": _drift,
    "unexplained": _unexplained,
}


def _numerical(draft: Draft) -> None:
    at = draft.uniform(0.3, 0.97)
    is_bad = draft.time >= at
    is_bad[-1] = True
    for name in ("grad_norm", "kl") if draft.draw.random() < 0.5 else ("grad_norm",):
        draft.columns[name] = np.where(is_bad, np.nan, draft.columns[name])
    if draft.draw.random() < 0.5:
        draft.level = np.where(is_bad, 0.0, draft.level)


def _environment(draft: Draft) -> None:
    at = draft.uniform(0.3, 0.7)
    draft.columns["faults"] = draft.uniform(0.15, 0.7) * (draft.time >= at)
    draft.level = draft.level * (1 - draft.columns["faults"])


def _estimator_noise(draft: Draft) -> None:
    draft.columns["dev"] = np.abs(draft.uniform(0.05, 0.5) + draft.normal(0.01))


def _never_alive(draft: Draft) -> None:
    """No spread in any group: nothing is ever rewarded, all alike, or each task has its own reward whatever is done."""
    kind = draft.draw.integers(3)
    draft.level = np.full(len(draft.time), 0.0 if kind == 0 else draft.uniform(0.2, 1.0))
    draft.noise = draft.uniform(0.02, 0.1) if kind == 2 else 0.0
    draft.columns["no_spread"] = np.ones(len(draft.time))


def _saturated(draft: Draft) -> None:
    low, end = draft.uniform(0.1, 0.5), draft.uniform(0.3, 0.7)
    draft.level = low + (draft.uniform(0.985, 1.0) - low) * np.minimum(1.0, draft.time / end)
    draft.noise = min(draft.noise, 0.015)
    full = draft.level**8 + (1 - draft.level) ** 8
    draft.columns["no_spread"] = np.clip(full + 0.06 * draft.ramp(end, 0.1), 0, draft.uniform(0.95, 1.0))


def _starved(draft: Draft) -> None:
    """The policy settles on one completion a task: whatever it scores, it scores alike in a group."""
    draft.level = flat(draft) * (1 - draft.uniform(0, 0.3) * draft.ramp(0.3, 0.3))
    late = draft.ramp(draft.uniform(0.2, 0.55), draft.uniform(0.05, 0.2))
    draft.columns["no_spread"] += (draft.uniform(0.94, 1.0) - draft.columns["no_spread"]) * late


def _truncated(draft: Draft) -> None:
    draft.level = flat(draft) * (1 - draft.uniform(0, 0.3) * draft.ramp(0.4, 0.3))
    start = draft.uniform(0.3, 0.9)
    draft.columns["cut"] = start + (draft.uniform(0.82, 0.99) - start) * draft.ramp(0.05, draft.uniform(0.2, 0.6))
    draft.columns["length"] = 500 * draft.columns["cut"] + 200 * (1 - draft.columns["cut"])


def _reward_hacking(draft: Draft) -> None:
    at, length = draft.uniform(0.3, 0.6), draft.uniform(0.02, 0.25)
    late = draft.ramp(at, length)
    accuracy = draft.uniform(0.25, 0.6) * (1 - draft.uniform(0.8, 1.0) * late)
    draft.columns["accuracy"] = accuracy
    draft.columns["format"] = draft.uniform(0.1, 0.3) + draft.uniform(0.5, 0.65) * late
    draft.level = np.clip(draft.columns["accuracy"] + draft.columns["format"], 0, 1.2)


def _overfitting(draft: Draft) -> None:
    low = draft.uniform(0.3, 0.5)
    draft.level = low + draft.uniform(0.2, 0.45) * np.minimum(1.0, draft.time / 0.6)
    best, at = draft.uniform(0.4, 0.7), draft.uniform(0.2, 0.55)
    draft.evaluations = best * (1 - draft.uniform(0.5, 0.95) * draft.ramp(at, draft.uniform(0.15, 0.4)))


OTHERS: dict[Kind, Callable[[Draft], None]] = {
    "numerical": _numerical,
    "environment": _environment,
    "estimator_noise": _estimator_noise,
    "never_alive": _never_alive,
    "saturated": _saturated,
    "starved": _starved,
    "truncated": _truncated,
    "reward_hacking": _reward_hacking,
    "overfitting": _overfitting,
}


def begin(draw: np.random.Generator, num_rows: int) -> Draft:
    """A run with the background that healthy runs have: much of it moves."""
    time = np.arange(num_rows) / num_rows
    draft = Draft(
        draw=draw,
        time=time,
        level=np.full(num_rows, 0.5),
        noise=float(draw.uniform(0.01, 0.08)),
        scale=float(draw.choice([1, 1, 1, 2, 10.5, 100, 0.3])),
        offset=float(draw.choice([0, 0, 0, 0, -0.5, -1])),
    )
    entropy = draft.uniform(0.1, 1.5)
    cut = draft.uniform(0, 0.3)
    draft.columns = {
        "entropy": entropy * (1 + draft.uniform(-0.7, 0.6) * time) * (1 + draft.normal(0.05)),
        "kl": draft.uniform(0.001, 0.5) * time**0.7 * np.abs(1 + draft.normal(0.1)),
        "grad_norm": draft.uniform(0.1, 3) * np.exp(draft.normal(draft.uniform(0.1, 0.5))),
        "clip_ratio": np.abs(draft.uniform(0, 0.05) + draft.normal(0.01)),
        "spread": np.abs(0.2 + draft.normal(0.02)),
        "ess": 0.95 + np.minimum(0, draft.normal(0.01)),
        "length": draft.uniform(50, 800) * (1 + draft.uniform(-0.3, 1.5) * time) * (1 + draft.normal(0.05)),
        "cut": np.clip(cut * (1 - draft.uniform(0, 1) * time) + draft.normal(0.02), 0, 1),
        "parse": np.clip(0.97 + draft.normal(0.01), 0, 1),
        "unique": np.clip(0.9 - draft.uniform(0, 0.2) * time + draft.normal(0.02), 0, 1),
        "no_spread": np.clip(draft.uniform(0, 0.55) + draft.uniform(-0.1, 0.15) * time, 0, 1),
        "faults": np.zeros(num_rows),
        "dev": np.zeros(num_rows),
    }
    for index in draw.choice(num_rows, size=int(draw.integers(0, 3)), replace=False):
        draft.columns["grad_norm"][index] *= draft.uniform(5, 50)
    if draw.random() < 0.2 and num_rows > 5:
        draft.columns["grad_norm"][int(draw.integers(1, num_rows - 2))] = np.inf
    return draft


def add_extras(draft: Draft) -> None:
    """What some healthy runs have besides: parts of the reward, and evaluations that follow it."""
    if draft.draw.random() < 0.3:
        draft.columns["format"] = 0.3 * (1 - np.exp(-draft.uniform(5, 30) * draft.time))
        draft.columns["accuracy"] = np.maximum(0.0, draft.level)
        draft.level = draft.level + draft.columns["format"]
    if draft.draw.random() < 0.4:
        draft.evaluations = draft.uniform(0.6, 1.0) * draft.level + draft.draw.normal(0, 0.03, len(draft.time))
