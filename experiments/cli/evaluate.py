"""`dllm-rl eval` and `film`: success of a policy or of the gold plans, and how one plan is written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from dllm_rl import registry
from dllm_rl.environment import Environment
from dllm_rl.episodes import Modes, Situation, oracle, play
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Fault, Task
from dllm_rl.reward import Reward
from dllm_rl.session import Session
from experiments.cli.components import component_of
from experiments.cli.counter import Count, counter
from experiments.cli.policy_keys import read_policy_keys
from experiments.cli.trained import Trained
from experiments.cli.turns import TurnOptions, turns_of
from experiments.design.config import (
    Component,
    Evaluation,
    PolicyLevel,
    build_reward,
    build_sampler,
    build_session,
)
from experiments.design.presets import load_preset
from experiments.run.evidence import in_parts
from experiments.run.folder import refuse_unwritable
from experiments.run.results import is_lost, write_rows

# The built-in world and reward, as the study preset has them.
REFERENCE_PRESET = "grid16"


def measure_oracle(splits: list[str] | None, *, environment: str | None, max_tasks: int | None, as_json: bool) -> int:
    """Play the oracle on every task; return 1 where it does not score exactly 1.

    Args:
        environment: As YAML.
    """
    preset = load_preset(REFERENCE_PRESET)
    rows: list[dict[str, Any]] = []
    chosen = chosen_environment(environment, preset.environment)
    refuse_without_oracle(chosen)
    with build_session(chosen) as session:
        reward = build_reward(usual_reward(session.environment))
        for split in splits or session.environment.splits:
            with counter(f"{split}, gold plans") as count:
                rows += _oracle_rows(session, session.tasks(split)[:max_tasks], reward, count)
    _print(rows, as_json=as_json)
    wrong = [row for row in rows if not row["success"] or row["reward"] != 1.0]
    if not as_json:
        print(f"{len(rows) - len(wrong)} of {len(rows)} gold plans score exactly 1")
        for row in wrong:
            print(f"  not solved: {row['task_id']} (reward {row['reward']:.2f}, fault {row['fault']}) {row['notes']}")
    return 1 if wrong else 0


def refuse_without_oracle(environment: Component) -> None:
    """Raise ConfigError where nothing is known that solves the environment's tasks."""
    if not registry.get("environment", environment.name).has_oracle():
        raise ConfigError(
            f"environment '{environment.name}' has no oracle: nothing is known that solves its tasks. Name a "
            "checkpoint in place of oracle."
        )


def usual_reward(environment: Environment) -> Component:
    """What is paid where nothing else is said. The shaped reward charges the refusals that an episode may need."""
    return Component(name="outcome") if environment.is_episodic else load_preset(REFERENCE_PRESET).reward


def _oracle_rows(session: Session, tasks: Sequence[Task], reward: Reward, count: Count) -> list[dict[str, Any]]:
    modes = Modes(**Evaluation().modes(session.environment))
    rows: list[dict[str, Any]] = []
    for part in in_parts(tasks):
        rollouts = play(session, reward, part, oracle(session), modes)
        rows += [rollout.to_row(mode="oracle") for rollout in rollouts]
        count(len(rows), len(tasks))
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How plans are sampled for a measurement.

    Attributes:
        sampler: As YAML; None for the one that a cell was trained for, else the usual one of the policy's family.
        num_samples: Sampled rollouts a task, beside the greedy one.
        seed: Of the sampling noise.
    """

    sampler: str | None
    temperature: float
    num_samples: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedTasks:
    """What is measured on.

    Attributes:
        environment: As YAML; None for the one that a cell was trained in, else that of the study preset.
        max_tasks: Of each split; None for all.
    """

    environment: str | None
    splits: tuple[str, ...]
    max_tasks: int | None


def measure(
    checkpoint: str,
    tasks: EvaluatedTasks,
    draws: Draws,
    *,
    turns: TurnOptions,
    out: Path | None,
    as_json: bool,
    policy_keys: Sequence[str] = (),
) -> int:
    """Evaluate a policy on splits: a greedy pass and some sampled rollouts a task.

    A cell's seed has the environment and the sampler of its own evaluation where no others are given.

    Args:
        turns: What it reads of earlier turns, and what it begins one with.
        policy_keys: Of the policy level, as `key=value`.
    """
    from dllm_rl.training.engine import RolloutEngine, evaluate
    from experiments.run import policies

    refuse_unwritable(out, example="rollouts.parquet")
    preset = load_preset(REFERENCE_PRESET)
    facts, options = read_policy_keys(policy_keys)
    policy, trained = policies.load(checkpoint, facts=facts, options=options), Trained.of(checkpoint)
    chosen = usual_sampler(draws.sampler, policy.family, preset.policies, trained)
    rows: list[dict[str, Any]] = []
    environment = chosen_environment(tasks.environment, trained.environment or preset.environment)
    with build_session(environment) as session:
        played = turns_of(checkpoint, policy, turns, environment=session.environment, sampler=chosen)
        modes, reward = trained.evaluation.modes(session.environment), usual_reward(session.environment)
        engine = RolloutEngine(
            policy=policy,
            sampler=build_sampler(chosen, temperature=draws.temperature),
            environment=session,
            reward=build_reward(reward),
            notebook=played.notebook,
            repair=played.repair,
            team=policies.load_team(played.roles, temperature=draws.temperature),
            isolation=modes["isolation"],
            executor=modes["executor"],
        )
        for split in tasks.splits:
            chosen_tasks = session.tasks(split)[: tasks.max_tasks]
            with counter(f"{split}, rollouts") as count:
                rows += evaluate(engine, chosen_tasks, num_samples=draws.num_samples, seed=draws.seed, on_result=count)
    _print(rows, as_json=as_json)
    if out is not None:
        labels = {
            "cell": checkpoint,
            "policy": policy.family,
            "objective": "",
            "role": "",
            "seed": draws.seed,
            "stage": "eval",
        }
        settings = {"environment": environment.model_dump(), "reward": reward.model_dump()}
        write_rows(out, rows, settings=settings, **labels)
    return 0


def chosen_environment(text: str | None, usual: Component) -> Component:
    """The environment that the text names, or the usual one."""
    return usual if text is None else component_of(text, "--environment", "{name: forms, options: {world: rich}}")


def usual_sampler(
    text: str | None, family: str, levels: dict[str, PolicyLevel], trained: Trained = Trained()
) -> Component:
    """The sampler that the text names; for None the one that the policy was trained for.

    Of a policy that is no cell's, the family's in these levels, in the preset `block`, or by default.
    """
    if text is not None:
        return component_of(text, "--sampler", "{name: threshold, options: {threshold: 0.9}}")
    if trained.evaluated_with is not None:
        return trained.evaluated_with
    for level in (*levels.values(), *load_preset("block").policies.values()):
        if level.family == family:
            return level.sampler
    return Component(name=registry.get("policy", family).usual_sampler)


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
            "-" if row["success"] is None else f"{100 * row['success']:.1f}",
            "-" if row["low"] is None else f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            "-" if row["reward"] is None else f"{row['reward']:.3f}",
            f"{row['lost']} ({row['unjudged']} not judged)" if row["unjudged"] else str(row["lost"]),
        )
    Console().print(table)


def _grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["split"], row["mode"]), []).append(row)
    return groups


def _summary(split: str, mode: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rates over valid rollouts, None where all are lost; those that were lost are counted apart."""
    valid = [row for row in rows if not is_lost(row["fault"])]
    count, good = len(valid), sum(row["success"] for row in valid)
    interval = binomtest(good, count).proportion_ci(method="wilson") if count else None
    return {
        "split": split,
        "mode": mode,
        "tasks": len({row["task_id"] for row in rows}),
        "rollouts": len(rows),
        "success": good / count if count else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "reward": sum(row["reward"] for row in valid) / count if count else None,
        "lost": len(rows) - count,
        "unjudged": sum(row["fault"] == Fault.JUDGE.value for row in rows),
    }


def show_film(
    checkpoint: str,
    *,
    split: str,
    number: int,
    sampler: str | None,
    temperature: float,
    seed: int,
    out: Path | None,
    policy_keys: Sequence[str] = (),
) -> int:
    """Print the film, and write it to `out` where one is given."""
    from dllm_rl.training.engine import RolloutEngine
    from experiments.report.film import print_film, record_film, render_film
    from experiments.run import policies

    refuse_unwritable(out, example="film.html")
    preset = load_preset(REFERENCE_PRESET)
    facts, options = read_policy_keys(policy_keys)
    policy, trained = policies.load(checkpoint, facts=facts, options=options), Trained.of(checkpoint)
    component = usual_sampler(sampler, policy.family, preset.policies, trained)
    environment = trained.environment or preset.environment
    with build_session(environment) as session:
        if session.environment.is_episodic:
            raise ConfigError(
                f"'{checkpoint}' was trained in the environment '{environment.name}', whose episodes have several "
                "turns; a film is of one plan. Use `dllm-rl episode`."
            )
        tasks = session.tasks(split)
        if number >= len(tasks):
            raise ConfigError(f"there is no task {number} in {split}: it has {len(tasks)}, counted from 0")
        engine = RolloutEngine(
            policy=policy,
            sampler=build_sampler(component, temperature=temperature),
            environment=session,
            reward=build_reward(preset.reward),
        )
        (page,) = session.observe_many([tasks[number]])
        first = Situation(row=0, task=tasks[number], turns=(), observation=page)
        (completion,) = engine.write([first], [number], seed=seed)
    options = ", ".join(f"{key} {value}" for key, value in component.options.items())
    film = record_film(
        policy,
        completion,
        title=tasks[number].id,
        instruction=tasks[number].instruction,
        sampler=f"{component.name} ({options})" if options else component.name,
    )
    print_film(film, Console())
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render_film(film), encoding="utf-8")
        print(f"wrote {out}")
    return 0
