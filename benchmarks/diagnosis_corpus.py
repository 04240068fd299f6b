"""Labelled training logs for the evaluation of `diagnose`: shapes drawn at random, in the dialects of four trainers.

The corpus has two halves with seeds of their own. The first may be looked at while detectors are written. The second is
only ever scored; shapes that are marked `held_out` occur in it alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from experiments.analysis.collapse import Kind
from experiments.analysis.collapse.readers import one_a_step

Half = Literal["first", "second"]
Curve = np.ndarray
NUM_HEALTHY, NUM_OF_A_KIND = 400, 16
_SEEDS: dict[Half, int] = {"first": 20_261_130, "second": 77_003_911}
_PARTS = {"accuracy": "rewards/accuracy_reward/mean", "format": "rewards/format_reward/mean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One labelled run. shape: how it was made. dialect: under whose names it is logged."""

    label: Kind
    shape: str
    dialect: str
    rows: list[dict[str, Any]]


@dataclass(slots=True, kw_only=True)
class Draft:
    """A run in the making: curves by canonical name over the time from 0 to 1. level: mean success without noise."""

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


def _exponential(draft: Draft) -> Curve:
    low, high = sorted((draft.uniform(0.05, 0.6), draft.uniform(0.3, 0.95)))
    return low + (high - low) * (1 - np.exp(-draft.uniform(1, 8) * draft.time))


def _sigmoid(draft: Draft) -> Curve:
    low, high = draft.uniform(0.02, 0.3), draft.uniform(0.5, 0.95)
    return low + (high - low) / (1 + np.exp(-draft.uniform(8, 30) * (draft.time - draft.uniform(0.2, 0.7))))


def _linear(draft: Draft) -> Curve:
    low = draft.uniform(0.1, 0.6)
    return low + draft.uniform(0.02, 0.35) * draft.time


def _flat(draft: Draft) -> Curve:
    return np.full(len(draft.time), draft.uniform(0.15, 0.85))


def _slides_a_tenth(draft: Draft) -> Curve:
    high = draft.uniform(0.4, 0.9)
    return high * (1 - draft.uniform(0.03, 0.15) * draft.ramp(draft.uniform(0.1, 0.6), 0.3))


def _dips(draft: Draft) -> Curve:
    """Falls by up to two thirds, for a twentieth of the run or less, and recovers."""
    level, at = _exponential(draft), draft.uniform(0.2, 0.85)
    inside = (draft.time >= at) & (draft.time < at + draft.uniform(0.01, 0.05))
    return np.where(inside, level * draft.uniform(0.33, 0.8), level)


def _curriculum(draft: Draft) -> Curve:
    """Harder tasks from some step on cost up to three tenths, which are partly gained again."""
    level, at = _exponential(draft), draft.uniform(0.3, 0.7)
    cost = draft.uniform(0.1, 0.3)
    return level * (1 - cost * (draft.time >= at) * (1 - draft.uniform(0.2, 0.8) * draft.ramp(at, 0.3)))


def _sparse(draft: Draft) -> Curve:
    """Seldom rewarded, and slowly more often."""
    return draft.uniform(0.01, 0.03) + draft.uniform(0.03, 0.2) * draft.time**2


def _sawtooth(draft: Draft) -> Curve:
    """Tasks in the same order in each epoch, easy ones first."""
    cycles = draft.uniform(3, 8)
    return _exponential(draft) * (1 - draft.uniform(0.05, 0.2) * ((draft.time * cycles) % 1))


def _walk(draft: Draft) -> Curve:
    steps = draft.draw.normal(0, 0.25 / math.sqrt(len(draft.time)), len(draft.time))
    return np.clip(draft.uniform(0.45, 0.65) + np.cumsum(steps), 0.3, 0.95)


def _restarts(draft: Draft) -> Curve:
    """Restarts of the learning rate cost a little, each for a while."""
    level, cycles = _exponential(draft), int(draft.draw.integers(2, 5))
    phase = (draft.time * cycles) % 1
    return level * (1 - draft.uniform(0.05, 0.2) * np.exp(-phase * 12) * (draft.time > 1 / cycles))


def _stages(draft: Draft) -> Curve:
    heights = np.sort(draft.draw.uniform(0.1, 0.95, int(draft.draw.integers(3, 6))))
    return heights[np.minimum((draft.time * len(heights)).astype(int), len(heights) - 1)]


HEALTHY_LEVELS: tuple[Callable[[Draft], Curve], ...] = (
    _exponential,
    _sigmoid,
    _linear,
    _flat,
    _slides_a_tenth,
    _dips,
    _curriculum,
    _sparse,
)
HELD_OUT_LEVELS = (_sawtooth, _walk, _restarts, _stages)


def _pick(draw: np.random.Generator, levels: Sequence[Callable[[Draft], Curve]]) -> Callable[[Draft], Curve]:
    return levels[int(draw.integers(len(levels)))]


# Falls, from the level of a healthy run.


def _falls(draft: Draft) -> tuple[Curve, float]:
    """A level that loses seven tenths or more, at once or over three tenths of the run; and when that begins."""
    level = _pick(draft.draw, [_exponential, _linear, _flat])(draft)
    at, length = draft.uniform(0.35, 0.75), draft.uniform(0, 0.2) * draft.draw.integers(0, 2)
    return level * (1 - draft.uniform(0.7, 1.0) * draft.ramp(at, length)), at


def _falls_in_waves(draft: Draft) -> tuple[Curve, float]:
    """A fall with a short recovery of up to four tenths in between."""
    level = _flat(draft)
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
    draft.level = _flat(draft) * (1 - draft.uniform(0, 0.3) * draft.ramp(0.3, 0.3))
    late = draft.ramp(draft.uniform(0.2, 0.55), draft.uniform(0.05, 0.2))
    draft.columns["no_spread"] += (draft.uniform(0.94, 1.0) - draft.columns["no_spread"]) * late


def _truncated(draft: Draft) -> None:
    draft.level = _flat(draft) * (1 - draft.uniform(0, 0.3) * draft.ramp(0.4, 0.3))
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
# Who logs enough to tell: the other trainers know no faults of an environment, d1 no entropy and no cut completions.
_DIALECTS: dict[Kind, tuple[str, ...]] = {
    "environment": ("ours",),
    "estimator_noise": ("ours",),
    "concentration": ("ours", "trl", "verl"),
    "entropy_explosion": ("ours", "trl", "verl"),
    "truncated": ("trl", "verl"),
    "reward_hacking": ("trl", "d1"),
    "overfitting": ("trl", "verl"),
    "starved": ("ours", "trl", "d1"),
}
DIALECTS = ("ours", "trl", "d1", "verl")


def _draft(draw: np.random.Generator, num_rows: int) -> Draft:
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


def _noise(draft: Draft) -> Curve:
    """Noise of a step's mean: white, dragging along, of few rollouts, or with outliers."""
    size, kind = len(draft.time), draft.draw.integers(4)
    if kind == 1:
        white, values = draft.normal(draft.noise * 0.8), np.zeros(size)
        for index in range(1, size):
            values[index] = 0.5 * values[index - 1] + white[index]
        return values
    if kind == 2 and draft.noise:
        rollouts = int(draft.draw.choice([8, 16, 32, 64]))
        level = np.clip(draft.level, 0, 1)
        return draft.draw.binomial(rollouts, level) / rollouts - level
    if kind == 3:
        return np.clip(draft.noise * 0.7 * draft.draw.standard_t(3, size), -0.3, 0.3)
    return draft.normal(draft.noise)


def _finish(draft: Draft, dialect: str) -> list[dict[str, Any]]:
    """Rows in a dialect, with parts, evaluations, sparse logging and restarts as they happen."""
    draw, size = draft.draw, len(draft.time)
    noise = _noise(draft)
    success = draft.level + noise if "accuracy" in draft.columns else np.clip(draft.level + noise, 0, 1)
    columns = {"reward": draft.scale * (success + draft.offset), **_names(draft, success, dialect)}
    for part, name in _PARTS.items():
        if part in draft.columns:
            values = draft.scale * np.clip(draft.columns[part] + draft.normal(0.02), 0, None)
            columns[name if dialect == "trl" else name.removesuffix("/mean")] = values
    stride = int(draw.choice([1, 1, 1, 5, 10]))
    steps = [(index + (dialect != "ours")) * stride for index in range(size)]
    if dialect == "verl":
        columns["critic/score/mean"] = columns.pop("reward")
    rows: list[dict[str, Any]] = [
        {"step": step, **{name: float(values[index]) for name, values in columns.items()}}
        for index, step in enumerate(steps)
    ]
    if draft.evaluations is not None:
        name = "eval_reward" if dialect == "trl" else "val-core/math/reward/mean@1"
        every = max(1, size // int(draw.integers(8, 20)))
        for index in range(every - 1, size, every):
            rows[index][name] = draft.scale * float(max(0, draft.evaluations[index] + draw.normal(0, 0.015)))
    if draw.random() < 0.1 and size > 40:
        rows = _restarted(rows, draw)
    return one_a_step(rows)


def _names(draft: Draft, success: Curve, dialect: str) -> dict[str, Curve]:
    c = draft.columns
    spread = draft.scale * 0.5 * (1 - c["no_spread"])
    if dialect == "ours":
        return {
            "success": np.clip(success, 0, 1),
            "entropy": c["entropy"],
            "kl": c["kl"],
            "grad_norm": c["grad_norm"],
            "clip_ratio/region_mean": c["clip_ratio"],
            "ratio/q05": 1 - c["spread"] / 2,
            "ratio/q95": 1 + c["spread"] / 2,
            "ratio/ess": c["ess"],
            "ratio/far_share": np.zeros(len(success)),
            "completion_length": c["length"],
            "eos_share": 1 - c["cut"],
            "parse_valid": c["parse"],
            "unique_completions": c["unique"],
            "frac_reward_zero_std": c["no_spread"],
            "all_good": np.where(success > 0.95, c["no_spread"], 0.1),
            "fault_share": c["faults"],
            "ratio_dev_u0": c["dev"],
        }
    if dialect == "verl":
        is_flat = c["no_spread"] >= 1
        # A reward of several parts may exceed that of one.
        highest = 1.3 if "accuracy" in c else 1.0
        top, bottom = draft.scale * (max(highest, success.max()) + draft.offset), draft.scale * draft.offset
        mean = draft.scale * (success + draft.offset)
        return {
            "actor/entropy": c["entropy"],
            "actor/kl_loss": c["kl"],
            "actor/grad_norm": c["grad_norm"],
            "actor/pg_clipfrac": c["clip_ratio"],
            "critic/score/max": np.where(is_flat, mean, top),
            "critic/score/min": np.where(is_flat, mean, bottom),
            "critic/advantages/max": np.where(is_flat, 0.0, 1.5),
            "critic/advantages/min": np.where(is_flat, 0.0, -1.5),
            "response_length/mean": c["length"],
            "response_length/clip_ratio": c["cut"],
        }
    common = {"reward_std": spread, "kl": c["kl"], "grad_norm": c["grad_norm"], "loss": draft.normal(0.01)}
    if dialect == "d1":
        share = {"zero_std_ratio": c["no_spread"]} if draft.draw.random() < 0.5 else {}
        return {**common, **share, "clip_ratio": c["clip_ratio"], "completion_length": c["length"]}
    return {
        **common,
        "frac_reward_zero_std": c["no_spread"],
        "entropy": c["entropy"],
        "clip_ratio/region_mean": c["clip_ratio"],
        "completions/mean_length": c["length"],
        "completions/clipped_ratio": c["cut"],
    }


def _restarted(rows: list[dict[str, Any]], draw: np.random.Generator) -> list[dict[str, Any]]:
    """The same log with a branch that went bad, was stopped, and lies between."""
    begin = int(draw.integers(10, len(rows) // 2))
    end = min(len(rows), begin + int(draw.integers(10, 30)))
    bad = [{name: value if name == "step" else 0.0 for name, value in row.items()} for row in rows[begin:end]]
    return [*rows[:begin], *bad, *rows[begin:]]


def _extras(draft: Draft) -> None:
    """What some healthy runs have besides: parts of the reward, and evaluations that follow it."""
    if draft.draw.random() < 0.3:
        draft.columns["format"] = 0.3 * (1 - np.exp(-draft.uniform(5, 30) * draft.time))
        draft.columns["accuracy"] = np.maximum(0.0, draft.level)
        draft.level = draft.level + draft.columns["format"]
    if draft.draw.random() < 0.4:
        draft.evaluations = draft.uniform(0.6, 1.0) * draft.level + draft.draw.normal(0, 0.03, len(draft.time))


def _num_rows(draw: np.random.Generator) -> int:
    return int(draw.choice([30, 40, 60, 80, 100, 150, 250, 400, 600]))


def corpus(half: Half) -> Iterator[Case]:
    """Cases of one half, the same at every call."""
    draw = np.random.default_rng(_SEEDS[half])
    is_held_out = half == "second"
    levels = HEALTHY_LEVELS + (HELD_OUT_LEVELS if is_held_out else ())
    for index in range(NUM_HEALTHY):
        draft, shape = _draft(draw, _num_rows(draw)), levels[index % len(levels)]
        draft.level = shape(draft)
        _extras(draft)
        dialect = DIALECTS[index // len(levels) % len(DIALECTS)]
        yield Case(label="healthy", shape=shape.__name__.strip("_"), dialect=dialect, rows=_finish(draft, dialect))
    for index in range(NUM_OF_A_KIND):
        draft = _draft(draw, int(draw.integers(3, 15)))
        draft.level = _pick(draw, [_exponential, _flat])(draft)
        dialect = DIALECTS[index % len(DIALECTS)]
        yield Case(label="too_short", shape="short", dialect=dialect, rows=_finish(draft, dialect))
    for kind, spoil in FALLS.items():
        for index in range(NUM_OF_A_KIND):
            draft, falls = _draft(draw, _num_rows(draw)), _falls_in_waves if is_held_out and index % 4 == 3 else _falls
            draft.level, at = falls(draft)
            spoil(draft, at)
            yield _case(kind, falls.__name__.strip("_"), draft, index)
    for kind, make in OTHERS.items():
        for index in range(NUM_OF_A_KIND):
            draft = _draft(draw, _num_rows(draw))
            draft.level = _pick(draw, [_exponential, _flat, _linear])(draft)
            make(draft)
            yield _case(kind, kind, draft, index)


def _case(kind: Kind, shape: str, draft: Draft, index: int) -> Case:
    dialects = _DIALECTS.get(kind, DIALECTS)
    dialect = dialects[index % len(dialects)]
    return Case(label=kind, shape=shape, dialect=dialect, rows=_finish(draft, dialect))
