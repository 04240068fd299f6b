"""Labelled training logs for the evaluation of `diagnose`: runs drawn at random, in the dialects of four trainers.

The corpus has two halves with seeds of their own. The first may be looked at while detectors are written. The second is
only ever scored; shapes that are marked `held_out` occur in it alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from benchmarks.diagnosis_runs import (
    FALLS,
    HEALTHY_LEVELS,
    HELD_OUT_LEVELS,
    OTHERS,
    Curve,
    Draft,
    add_extras,
    begin,
    exponential,
    falls,
    falls_in_waves,
    flat,
    linear,
    pick,
)
from experiments.analysis.collapse import Kind
from experiments.analysis.collapse.readers import one_a_step

Half = Literal["first", "second"]
NUM_HEALTHY, NUM_OF_A_KIND = 400, 16
_SEEDS: dict[Half, int] = {"first": 20_261_130, "second": 77_003_911}
_PARTS = {"accuracy": "rewards/accuracy_reward/mean", "format": "rewards/format_reward/mean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One labelled run.

    Attributes:
        shape: How it was made.
        dialect: Under whose names it is logged.
    """

    label: Kind
    shape: str
    dialect: str
    rows: list[dict[str, Any]]


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


def _num_rows(draw: np.random.Generator) -> int:
    return int(draw.choice([30, 40, 60, 80, 100, 150, 250, 400, 600]))


def corpus(half: Half) -> Iterator[Case]:
    """Cases of one half, the same at every call."""
    draw = np.random.default_rng(_SEEDS[half])
    is_held_out = half == "second"
    levels = HEALTHY_LEVELS + (HELD_OUT_LEVELS if is_held_out else ())
    for index in range(NUM_HEALTHY):
        draft, shape = begin(draw, _num_rows(draw)), levels[index % len(levels)]
        draft.level = shape(draft)
        add_extras(draft)
        dialect = DIALECTS[index // len(levels) % len(DIALECTS)]
        yield Case(label="healthy", shape=shape.__name__.strip("_"), dialect=dialect, rows=_finish(draft, dialect))
    for index in range(NUM_OF_A_KIND):
        draft = begin(draw, int(draw.integers(3, 15)))
        draft.level = pick(draw, [exponential, flat])(draft)
        dialect = DIALECTS[index % len(DIALECTS)]
        yield Case(label="too_short", shape="short", dialect=dialect, rows=_finish(draft, dialect))
    for kind, spoil in FALLS.items():
        for index in range(NUM_OF_A_KIND):
            draft, fall = begin(draw, _num_rows(draw)), falls_in_waves if is_held_out and index % 4 == 3 else falls
            draft.level, at = fall(draft)
            spoil(draft, at)
            yield _case(kind, fall.__name__, draft, index)
    for kind, make in OTHERS.items():
        for index in range(NUM_OF_A_KIND):
            draft = begin(draw, _num_rows(draw))
            draft.level = pick(draw, [exponential, flat, linear])(draft)
            make(draft)
            yield _case(kind, kind, draft, index)


def _case(kind: Kind, shape: str, draft: Draft, index: int) -> Case:
    dialects = _DIALECTS.get(kind, DIALECTS)
    dialect = dialects[index % len(dialects)]
    return Case(label=kind, shape=shape, dialect=dialect, rows=_finish(draft, dialect))
