"""Guided decoding beside best of n: what a reward is worth while a plan is written, and afterwards.

`python -m benchmarks.guided builtin:masked_finish --inverter runs/inverters/inverter --embedder FILE`

Each task is written `--repeats` times. Best of n samples n plans by the threshold rule and keeps what the reward
ranks first, ties drawn by lot; guided decoding (`smc` with a guide) writes n canvases that the reward multiplies or
drops on the way. Both write n canvases and see the same reward, of the plan and not of a run. All plans are run in
Chromium once. Intervals resample tasks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.best_of_n import best_of, interval
from dllm_rl.episodes import Situation, given, play
from dllm_rl.records.evidence import as_planned
from dllm_rl.records.rollout import Completion, Rollout
from dllm_rl.reward import scores
from dllm_rl.session import Session
from dllm_rl.training.engine import RolloutEngine
from experiments.design.config import build_reward, build_session
from experiments.design.presets import load_preset
from experiments.run.policies import load
from samplers import SMCSampler, ThresholdSampler
from samplers.loop.guide import Guide

THRESHOLD, SEED = 0.97, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What an arm's plans came to.

    Attributes:
        right, success: Share of the plans of each task with right fields, and that succeed.
        seconds: Of sampling a plan, ranking included.
        forwards: Token forwards a plan.
    """

    name: str
    right: np.ndarray
    success: np.ndarray
    seconds: float
    forwards: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Plans of a sampler, task by task, and what they cost."""

    rollouts: list[Rollout]
    seconds: float
    forwards: float


def write(session: Session, policy: Any, sampler: Any, tasks: Sequence[Any], count: int) -> Written:
    """Write and run so many plans of each task."""
    engine = RolloutEngine(
        policy=policy, sampler=sampler, environment=session, reward=build_reward(load_preset("grid16").reward)
    )
    pages = session.observe_many(tasks)
    started, written, forwards = time.process_time(), list[Completion](), 0
    for start in range(0, len(tasks), 8):
        part = [(at, number) for at in range(start, min(start + 8, len(tasks))) for number in range(count)]
        situations = [Situation(row=0, task=tasks[at], turns=(), observation=pages[at]) for at, _ in part]
        fresh = engine.write(situations, [number * 1_000_003 + at for at, number in part], seed=SEED)
        assert fresh[0].sampled is not None
        forwards += fresh[0].sampled.completions.token_forwards
        written += fresh
    spent = time.process_time() - started
    rollouts = play(session, engine.reward, [task for task in tasks for _ in range(count)], given(written))
    return Written(rollouts=rollouts, seconds=spent / len(rollouts), forwards=forwards / len(rollouts))


def outcomes(rollouts: Sequence[Rollout], shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Whether fields are right, and whether plans succeed."""
    right, success = (
        np.array([read(item) for item in rollouts], dtype=float).reshape(shape)
        for read in (lambda item: item.outcome.all_correct, lambda item: item.outcome.is_success)
    )
    return right, success


def best_of_n(name: str, guide: Guide, drawn: Written, num: int) -> Arm:
    """Of every `num` plans of a task the one that the reward ranks first."""
    episodes = [as_planned(i.task.instruction, i.turns[0].observation, i.plan) for i in drawn.rollouts]
    reward = guide.build()
    scores(reward, episodes[:1])
    started = time.process_time()
    values = np.array([score.value for score in scores(reward, episodes)]).reshape(-1, num)
    seconds = num * (drawn.seconds + (time.process_time() - started) / len(episodes))
    per_task = len(drawn.rollouts) // num // len({item.task.id for item in drawn.rollouts})
    right, success = (
        np.array([best_of(own, truth, num) for own, truth in zip(values, found, strict=True)])
        .reshape(-1, per_task)
        .mean(axis=1)
        for found in outcomes(drawn.rollouts, (-1, num))
    )
    return Arm(name=name, right=right, success=success, seconds=seconds, forwards=num * drawn.forwards)


def plain(name: str, drawn: Written, per_task: int) -> Arm:
    """Plans as they come."""
    right, success = (found.mean(axis=1) for found in outcomes(drawn.rollouts, (-1, per_task)))
    return Arm(name=name, right=right, success=success, seconds=drawn.seconds, forwards=drawn.forwards)


def guides(inverter: str | None, embedder: str | None, strength: float) -> dict[str, Guide]:
    """The rewards that are tried, by name."""
    found = {"FLIP, plain": Guide(reward="flip", options={"inverter": "plain"}, strength=strength)}
    if inverter is not None:
        options = {"inverter_options": {"checkpoint": inverter}, "similarity": "pmi"}
        found["FLIP, twin, pmi"] = Guide(reward="flip", options=options, strength=strength)
    if embedder is not None:
        options = {"file": embedder, "pays": "margin"}
        found["embedder, margin"] = Guide(reward="embedder", options=options, strength=strength)
    return found


def show(arms: Sequence[Arm]) -> None:
    """Print the table; the first arm is chance."""
    print("| decoding | right fields, % | over one plan | success, % | over one plan | token forwards | s a plan |")
    print("|---" + "|--:" * 6 + "|")
    for arm in arms:
        cells = []
        for own, chance in ((arm.right, arms[0].right), (arm.success, arms[0].success)):
            low, high = interval(own - chance)
            lift = f"{100 * (own - chance).mean():+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            cells += [f"{100 * own.mean():.1f}", "" if arm is arms[0] else lift]
        print(f"| {arm.name} | " + " | ".join(cells) + f" | {arm.forwards:,.0f} | {arm.seconds:.2f} |", flush=True)


def main(chosen: argparse.Namespace) -> None:
    policy, num = load(chosen.checkpoint), chosen.particles
    arms: list[Arm] = []
    with build_session(load_preset("grid16").environment) as session:
        tasks = session.tasks(chosen.split)[: chosen.tasks]
        rule = ThresholdSampler(threshold=THRESHOLD)
        drawn = write(session, policy, rule, tasks, num * chosen.repeats)
        arms.append(plain("one plan", drawn, num * chosen.repeats))
        for name, guide in guides(chosen.inverter, chosen.embedder, chosen.strength).items():
            arms.append(best_of_n(f"best of {num}, {name}", guide, drawn, num))
            sampler = SMCSampler(threshold=THRESHOLD, num_particles=num, sharpness=0.0, guide=guide)
            arms.append(
                plain(f"smc of {num}, {name}", write(session, policy, sampler, tasks, chosen.repeats), chosen.repeats)
            )
    print(f"{len(tasks)} tasks of {chosen.split}, {chosen.repeats} repeats, strength {chosen.strength:g}\n")
    show(arms)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="builtin:<name>, or a folder, of the masked family")
    parser.add_argument("--inverter", help="folder of an autoregressive inverter")
    parser.add_argument("--embedder", help="an embedder's file")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--particles", type=int, default=4)
    parser.add_argument("--strength", type=float, default=10.0)
    torch.set_num_threads(1)
    main(parser.parse_args())
