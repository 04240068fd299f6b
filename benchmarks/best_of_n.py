"""Best of n: what picking plans by a ranker is worth, against chance, the policy's own log-probability, and the oracle.

`python -m benchmarks.best_of_n builtin:autoregressive_finish --judge builtin:forms_1000 --embedder FILE`

Groups of plans are sampled at temperature 1 and run in Chromium once. Rankers of plans choose before the browser opens,
from what a plan would set; rankers of episodes choose afterwards. What a pick is worth is exact: the mean success over
all subsets of n plans of a group, ties drawn by lot. Intervals resample tasks.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np
import torch

from dllm_rl import registry
from dllm_rl.episodes import Situation, given, play
from dllm_rl.records.evidence import Evidence, as_planned
from dllm_rl.records.rollout import Completion, Rollout
from dllm_rl.reward import Reward, scores
from dllm_rl.training.engine import RolloutEngine
from experiments.analysis.judges import auroc
from experiments.cli.evaluate import usual_sampler
from experiments.design.config import build_reward, build_sampler, build_session
from experiments.design.presets import load_preset
from experiments.run.policies import load

_NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """Plans of the same tasks, what may be read of them before and after they ran, and whether they succeeded.

    Attributes:
        log_probs, success: (tasks, plans).
        browser_seconds: Of an episode.
    """

    planned: list[Evidence]
    executed: list[Evidence]
    log_probs: np.ndarray
    success: np.ndarray
    browser_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A ranker's scores (tasks, plans), and its seconds an episode."""

    name: str
    values: np.ndarray
    seconds: float


def sample(checkpoint: str, *, split: str, num_tasks: int, group: int, seed: int) -> Groups:
    """Sample and run `group` plans of each task."""
    preset = load_preset("grid16")
    policy = load(checkpoint)
    sampler = build_sampler(usual_sampler(None, policy.family, preset.policies))
    with build_session(preset.environment) as session:
        tasks = session.tasks(split)[:num_tasks]
        pages = session.observe_many(tasks)
        engine = RolloutEngine(policy=policy, sampler=sampler, environment=session, reward=build_reward(preset.reward))
        written: list[Completion] = []
        for start in range(0, len(tasks), 8):
            part = range(start, min(start + 8, len(tasks)))
            rows = [(at, number) for at in part for number in range(group)]
            situations = [Situation(row=0, task=tasks[at], turns=(), observation=pages[at]) for at, _ in rows]
            written += engine.write(situations, [number * 1_000_003 + at for at, number in rows], seed=seed)
        repeated = [task for task in tasks for _ in range(group)]
        started = time.perf_counter()
        rollouts = play(session, engine.reward, repeated, given(written))
        seconds = (time.perf_counter() - started) / len(rollouts)
    shape = (len(tasks), group)
    return Groups(
        planned=[as_planned(item.task.instruction, item.turns[0].observation, item.plan) for item in rollouts],
        executed=[Evidence.of(item.task, item.turns, item.outcome) for item in rollouts],
        log_probs=np.array([_log_prob(item) for item in written]).reshape(shape),
        success=np.array([_truth(item) for item in rollouts]).reshape(shape),
        browser_seconds=seconds,
    )


def _log_prob(completion: Completion) -> float:
    """Summed over what was drawn, under the distributions that it was drawn from."""
    drawn = completion.sampled
    assert drawn is not None
    masked = torch.where(drawn.completions.mask, drawn.completions.trajectory.log_probs, 0.0)
    return float(masked[drawn.row].sum())


def _truth(rollout: Rollout) -> bool:
    assert rollout.outcome.is_valid, f"the environment lost {rollout.task.id}: {rollout.outcome.fault_reason}"
    return rollout.outcome.is_success


def ranked(name: str, reward: Reward, episodes: Sequence[Evidence], shape: tuple[int, int]) -> Ranked:
    """Score all episodes once, after a first one that loads what the reward reads."""
    scores(reward, episodes[:1])
    started = time.perf_counter()
    values = np.array([item.value for item in scores(reward, episodes)]).reshape(shape)
    return Ranked(name=name, values=values, seconds=(time.perf_counter() - started) / len(episodes))


def best_of(values: np.ndarray, success: np.ndarray, num: int) -> float:
    """Mean success of the best of `num` plans, over all subsets of a group."""
    total, below = comb(len(values), num), 0
    expected = 0.0
    for level in np.unique(values):
        members = values == level
        chance = (comb(below + int(members.sum()), num) - comb(below, num)) / total
        expected += chance * float(success[members].mean())
        below += int(members.sum())
    return expected


def curve(values: np.ndarray, success: np.ndarray, num: int) -> np.ndarray:
    """Best of `num` of each task."""
    return np.array([best_of(own, truth, num) for own, truth in zip(values, success, strict=True)])


def interval(differences: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a mean over tasks, by resampling them."""
    rows = np.random.default_rng(seed).integers(len(differences), size=(_NUM_RESAMPLES, len(differences)))
    low, high = np.percentile(differences[rows].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def rankers(groups: Groups, files: dict[str, str | None], inverters: Sequence[str]) -> list[Ranked]:
    """All rankers that are asked for, and the oracle last.

    Args:
        files: Of the rewards that read one, by name.
    """
    shape = groups.success.shape
    rewards: dict[str, Callable[[], Reward]] = {}
    for name, file in files.items():
        if file is not None:
            rewards[name] = lambda name=name, file=file: registry.build("reward", name, {"file": file})
    for folder in inverters:
        inverter = {"inverter": "plain"} if folder == "plain" else {"inverter_options": {"checkpoint": folder}}
        for similarity in ("words", "fields") if folder == "plain" else ("words", "fields", "idf", "pmi"):
            options = {**inverter, "similarity": similarity}
            name = f"flip, {'plain' if folder == 'plain' else Path(folder).name}, {similarity}"
            rewards[name] = lambda options=options: registry.build("reward", "flip", options)
    found = [Ranked(name="log-probability", values=groups.log_probs, seconds=0.0)]
    for name, build in rewards.items():
        reward = build()
        found.append(ranked(f"{name}, of the plan", reward, groups.planned, shape))
        found.append(ranked(f"{name}, of the episode", reward, groups.executed, shape))
    words = registry.build("reward", "success_words")
    found.append(ranked("success words, of the episode", words, groups.executed, shape))
    return [*found, Ranked(name="oracle", values=groups.success.astype(float), seconds=0.0)]


def show(groups: Groups, found: Sequence[Ranked], sizes: Sequence[int]) -> list[dict]:
    """Print the table and return its rows."""
    num, truth = groups.success.shape[1], groups.success
    chance = truth.mean(axis=1)
    own = curve(groups.log_probs, truth, num)
    print(f"{len(truth)} tasks x {num} plans; success by chance {100 * chance.mean():.1f} %")
    print(f"an episode takes {1000 * groups.browser_seconds:.0f} ms in the browser\n")
    print("| ranker | AUROC | " + " | ".join(f"n = {size}" for size in sizes), end=" | ")
    print(f"best of {num} over chance | over log-probability | cost, share of an episode |")
    print("|---|" + "--:|" * (len(sizes) + 4))
    rows = []
    for item in found:
        best = {size: float(curve(item.values, truth, size).mean()) for size in sizes}
        picked = curve(item.values, truth, num)
        lifts = [(float((picked - base).mean()), *interval(picked - base)) for base in (chance, own)]
        share = item.seconds / groups.browser_seconds
        area = auroc(item.values.ravel(), truth.ravel())
        cells = [f"{area:.3f}", *(f"{100 * best[size]:.1f}" for size in sizes)]
        cells += [f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" for mean, low, high in lifts]
        print(f"| {item.name} | " + " | ".join([*cells, f"{100 * share:.1f} %"]) + " |")
        rows.append({"ranker": item.name, "auroc": area, "best": best, "lifts": lifts, "share": share})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="builtin:<name>, or a folder")
    parser.add_argument("--judge", help="a judge's file")
    parser.add_argument("--embedder", help="an embedder's file")
    parser.add_argument("--inverter", nargs="*", default=["plain"], help="folders of inverters, or plain")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the same figures")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    groups = sample(chosen.checkpoint, split=chosen.split, num_tasks=chosen.tasks, group=chosen.group, seed=chosen.seed)
    sizes = [size for size in (1, 2, 4, 8, 16) if size <= chosen.group]
    files = {"judge": chosen.judge, "embedder": chosen.embedder}
    rows = show(groups, rankers(groups, files, chosen.inverter), sizes)
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
