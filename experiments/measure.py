"""`dllm-rl eval`: success in real Chromium, of a policy or of the gold plans, by split and with intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from dllm_rl.episode import Completion, RewardFunction, run_plans
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.tasks import SPLITS
from experiments.components import build_reward, build_sampler, build_session
from experiments.config import Component, PolicyLevel, load_preset
from experiments.units import select_tasks
from experiments.validation import validate
from harness.session import EnvironmentSession
from harness.settings import world_settings
from harness.text import TextSession
from samplers import DEFAULT_SAMPLERS

# The built-in world and reward, as the study preset has them.
REFERENCE_PRESET = "grid16"


def measure_oracle(
    splits: list[str] | None,
    *,
    max_tasks: int | None,
    as_json: bool,
    world: str = "basic",
    difficulties: Sequence[int] = (),
) -> int:
    """Run the gold plan of every task; 1 where one does not score exactly 1. world: see `FormSettings`."""
    preset = load_preset(REFERENCE_PRESET)
    chosen = checked_splits(splits or list(SPLITS))
    rows: list[dict[str, Any]] = []
    with _oracle_session(preset.environment, chosen, max_tasks, world, difficulties) as session:
        for split in chosen:
            rows += _oracle_rows(session, split, max_tasks, build_reward(preset.reward))
    _print(rows, as_json=as_json)
    wrong = [row for row in rows if not row["success"] or row["reward"] != 1.0]
    if not as_json:
        print(f"{len(rows) - len(wrong)} of {len(rows)} gold plans score exactly 1")
        for row in wrong:
            print(f"  not solved: {row['task_id']} (reward {row['reward']:.2f}, fault {row['fault']}) {row['notes']}")
    return 1 if wrong else 0


def _oracle_session(
    component: Component, splits: list[str], max_tasks: int | None, world: str, difficulties: Sequence[int]
) -> EnvironmentSession | TextSession:
    """The basic world is that of the study preset."""
    counts = dict.fromkeys(splits, max_tasks) if max_tasks else {}
    settings = world_settings(world, difficulties, counts=counts)
    return build_session(component) if world == "basic" else EnvironmentSession(settings)


def _oracle_rows(
    session: EnvironmentSession | TextSession,
    split: str,
    max_tasks: int | None,
    reward: RewardFunction,
) -> list[dict[str, Any]]:
    tasks = select_tasks(session, split, max_tasks)
    plans = [(task, Completion(plan=session.gold_plan(task))) for task in tasks]
    rollouts = run_plans(session, reward, plans, isolation="context", executor="trusted")
    return [rollout.to_row(mode="oracle") for rollout in rollouts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How plans are sampled for a measurement.

    sampler: as YAML; None for the usual one of the policy's family.
    num_samples: sampled rollouts a task, beside the greedy one.
    seed: of the sampling noise.
    """

    sampler: str | None
    temperature: float
    num_samples: int
    seed: int


def measure(
    checkpoint: str, splits: list[str], draws: Draws, *, max_tasks: int | None, out: Path | None, as_json: bool
) -> int:
    """Evaluate a policy on splits: a greedy pass and some sampled rollouts a task."""
    from dllm_rl.engine import RolloutEngine
    from dllm_rl.evaluation import evaluate
    from experiments import policies

    preset = load_preset(REFERENCE_PRESET)
    policy = policies.load(checkpoint)
    chosen = usual_sampler(draws.sampler, policy.family, preset.policies)
    rows: list[dict[str, Any]] = []
    with build_session(preset.environment) as session:
        engine = RolloutEngine(
            policy=policy,
            sampler=build_sampler(chosen, temperature=draws.temperature),
            environment=session,
            reward=build_reward(preset.reward),
            isolation="context",
            executor="trusted",
        )
        for split in checked_splits(splits):
            tasks = select_tasks(session, split, max_tasks)
            rows += evaluate(engine, tasks, num_samples=draws.num_samples, seed=draws.seed)
    if out is not None:
        from experiments.results import write_rows

        labels = {
            "cell": checkpoint,
            "policy": policy.family,
            "objective": "",
            "role": "",
            "seed": draws.seed,
            "stage": "eval",
        }
        write_rows(out, rows, **labels)
    _print(rows, as_json=as_json)
    return 0


def checked_splits(splits: list[str]) -> list[str]:
    """The splits, or an error with the nearest known name."""
    for split in splits:
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
    return splits


def usual_sampler(text: str | None, family: str, levels: dict[str, PolicyLevel]) -> Component:
    """The sampler that the text names; for None the family's in these levels, in the preset `block`, or by default."""
    if text is not None:
        try:
            return validate(Component, yaml.safe_load(text), source="--sampler")
        except yaml.YAMLError as error:
            raise ConfigError(
                f"--sampler {text}: not YAML. Write {{name: threshold, options: {{threshold: 0.9}}}}."
            ) from error
    for level in (*levels.values(), *load_preset("block").policies.values()):
        if level.family == family:
            return level.sampler
    if family in DEFAULT_SAMPLERS:
        return Component(name=DEFAULT_SAMPLERS[family])
    raise ConfigError(f"no usual sampler is known for the family '{family}'. Give one: --sampler NAME")


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    summary = [_summary(split, mode, part) for (split, mode), part in _grouped(rows).items()]
    if as_json:
        print(json.dumps(summary, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("split", "mode", "tasks", "rollouts", "success %", "95 % interval", "reward", "lost"):
        table.add_column(name, no_wrap=True)
    for row in summary:
        table.add_row(
            row["split"],
            row["mode"],
            str(row["tasks"]),
            str(row["rollouts"]),
            f"{100 * row['success']:.1f}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            f"{row['reward']:.3f}",
            str(row["lost"]),
        )
    Console().print(table)


def _grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["mode"]), []).append(row)
    return groups


def _summary(split: str, mode: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates over valid rollouts; those that the environment lost are counted apart."""
    valid = [row for row in rows if row["fault"] != "environment"]
    count, good = len(valid), sum(row["success"] for row in valid)
    interval = binomtest(good, count).proportion_ci(method="wilson") if count else None
    return {
        "split": split,
        "mode": mode,
        "tasks": len({row["task_id"] for row in rows}),
        "rollouts": len(rows),
        "success": good / count if count else 0.0,
        "low": interval.low if interval else 0.0,
        "high": interval.high if interval else 1.0,
        "reward": sum(row["reward"] for row in valid) / count if count else 0.0,
        "lost": len(rows) - count,
    }
