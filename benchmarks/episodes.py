"""What a policy's episodes owe to its notebook, and to how it goes on after feedback: one JSON line a condition.

`python -m benchmarks.episodes builtin:masked_episodes --conditions memory` plays the same tasks under five
notebooks; `--conditions writing` writes every turn anew, or repairs the last plan (`dllm_rl.repair`); `--conditions
roles` writes turns in roles, and without each of them (`dllm_rl.roles`). The checkpoint is made by `dllm-rl warmstart
masked_episodes --recipe episodes`, for roles by `--recipe episodes_roles`. It is not trained again, so a notebook's
line says what the policy makes of it, and not what another could.

- *forwards*: of the model, in all turns of an episode, each row by itself.
- *actions*: lines that ran in the browser.
- *within N forwards*: successes that took no more, so that ways of writing are compared at equal cost.
- *difference*: to the first condition, in points, paired by task, with a 95 % interval over tasks.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats

from dllm_rl.notebook import Notebook
from dllm_rl.records.events import Kind
from dllm_rl.records.rollout import Completion, Rollout
from dllm_rl.records.tasks import Task
from dllm_rl.repair import Repair
from dllm_rl.roles import Roles
from dllm_rl.session import Session
from dllm_rl.training.calls import Team
from dllm_rl.training.engine import RolloutEngine
from experiments.cli.evaluate import usual_sampler
from experiments.design.config import build_sampler
from experiments.design.presets import load_preset
from experiments.run.policies import load
from harness.environments import EpisodeEnvironment, EpisodeSettings
from harness.rewards import Success

PRESET = "episodes"
BUDGETS = (20, 40, 80, 160)
MEMORY: dict[str, dict[str, Any]] = {
    "full": {"notebook": Notebook()},
    "actions": {"notebook": Notebook(memory="actions", feedback=False)},
    "feedback": {"notebook": Notebook(memory="feedback")},
    "last feedback": {"notebook": Notebook(memory="none")},
    "none": {"notebook": Notebook(memory="none", feedback=False)},
}
WRITING: dict[str, dict[str, Any]] = {
    "rewrite": {},
    "repair": {"repair": Repair()},
    "repair below .9": {"repair": Repair(confidence=0.9)},
}
ROLES: dict[str, dict[str, Any]] = {
    "all roles": {"team": Team(roles=Roles())},
    "no reflector": {"team": Team(roles=Roles(reflector=False))},
    "no planner": {"team": Team(roles=Roles(planner=False, grounder=False))},
    "no grounder": {"team": Team(roles=Roles(grounder=False))},
    "no summarizer": {"team": Team(roles=Roles(summarizer=False))},
    "no roles": {},
}
CONDITIONS = {"memory": MEMORY, "writing": WRITING, "roles": ROLES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One episode of a condition."""

    task_id: str
    kind: str
    is_success: bool
    is_near_miss: bool
    num_turns: int
    num_forwards: int
    num_actions: int
    ending: str

    @classmethod
    def of(cls, rollout: Rollout) -> Played:
        """Read a rollout whose turns were sampled."""
        outcome = rollout.outcome
        return cls(
            task_id=rollout.task.id,
            kind=rollout.task.site.split(".")[1],
            is_success=outcome.is_success,
            is_near_miss=outcome.is_near_miss,
            num_turns=len(rollout.turns),
            num_forwards=sum(forwards(rollout, turn) for turn in range(len(rollout.turns))),
            num_actions=sum(action.status in ("ok", "failed") for action in outcome.actions),
            ending="" if outcome.ending is None else outcome.ending.value,
        )


def forwards(rollout: Rollout, turn: int) -> int:
    """Forwards that a turn took: steps at which something was drawn."""
    return sum(_steps(written) for written in rollout.turns[turn].completion.trained)


def _steps(written: Completion) -> int:
    drawn = written.sampled
    assert drawn is not None
    events = drawn.completions.trajectory.rows(torch.tensor([drawn.row])).events
    return int(events.step[events.kind <= Kind.JUMP].unique().numel())


def play_all(engine: RolloutEngine, tasks: Sequence[Task], *, num: int, seed: int) -> list[Played]:
    """`num` episodes of each task; what the environment lost is left out."""
    jobs = [(sample, at) for sample in range(num) for at in range(len(tasks))]
    row_ids = [sample * 1_000_003 + at for sample, at in jobs]
    rollouts = engine.run([tasks[at] for _, at in jobs], row_ids, seed=seed).rollouts
    return [Played.of(rollout) for rollout in rollouts if rollout.outcome.is_valid]


def summary(played: Sequence[Played], first: Sequence[Played] | None) -> dict[str, Any]:
    """Figures of a condition, and its difference to the first one."""
    good = [item for item in played if item.is_success]
    found: dict[str, Any] = {
        "episodes": len(played),
        "success": 100 * len(good) / len(played),
        "near misses": 100 * mean(item.is_near_miss for item in played),
        "turns of a success": mean(item.num_turns for item in good),
        "turns": mean(item.num_turns for item in played),
        "forwards": mean(item.num_forwards for item in played),
        "actions a success": sum(item.num_actions for item in played) / max(1, len(good)),
        "endings": {name: round(count / len(played), 3) for name, count in Counter(i.ending for i in played).items()},
        "success by kind": {
            kind: round(100 * mean(item.is_success for item in played if item.kind == kind))
            for kind in sorted({item.kind for item in played})
        },
    }
    for budget in BUDGETS:
        found[f"within {budget} forwards"] = 100 * mean(_within(item, budget) for item in played)
    if first is not None:
        found["difference"] = difference(played, first, None)
        found |= {f"difference within {budget}": difference(played, first, budget) for budget in BUDGETS}
    return found


def mean(values: Any) -> float:
    """Mean of numbers; NaN of none."""
    items = [float(value) for value in values]
    return sum(items) / len(items) if items else float("nan")


def _within(item: Played, budget: int | None) -> bool:
    return item.is_success and (budget is None or item.num_forwards <= budget)


def difference(played: Sequence[Played], first: Sequence[Played], budget: int | None) -> list[float]:
    """Points of success more than in the first condition, with the ends of the interval."""
    one, two = (_by_task(items, budget) for items in (first, played))
    gaps = 100 * np.array([two[task] - one[task] for task in sorted(one.keys() & two.keys())])
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5)
    middle = float(gaps.mean())
    return [round(value, 1) for value in (middle, middle - half, middle + half)]


def _by_task(played: Sequence[Played], budget: int | None) -> Mapping[str, float]:
    found: dict[str, list[float]] = {}
    for item in played:
        found.setdefault(item.task_id, []).append(float(_within(item, budget)))
    return {task: mean(values) for task, values in found.items()}


def main() -> None:
    """Print one JSON line a condition."""
    preset = load_preset(PRESET)
    usual = preset.environment.options
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", help="builtin:<name>, or a folder")
    parser.add_argument("--conditions", choices=CONDITIONS, required=True)
    parser.add_argument("--kinds", nargs="+", default=usual["kinds"])
    parser.add_argument("--difficulties", nargs="+", type=int, default=usual["difficulties"])
    parser.add_argument("--split", default="val")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--sampler", help="as YAML; default: that of the preset")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    policy = load(chosen.checkpoint)
    settings = EpisodeSettings(
        kinds=tuple(chosen.kinds),
        difficulties=tuple(chosen.difficulties),
        max_turns=usual["max_turns"],
        counts={chosen.split: chosen.tasks},
    )
    with Session(EpisodeEnvironment(settings)) as session:
        engine = RolloutEngine(
            policy=policy,
            sampler=build_sampler(usual_sampler(chosen.sampler, policy.family, preset.policies), temperature=1.0),
            environment=session,
            reward=Success(),
        )
        first = None
        for name, changes in CONDITIONS[chosen.conditions].items():
            played = play_all(
                replace(engine, **changes), session.tasks(chosen.split), num=chosen.samples, seed=chosen.seed
            )
            record = {"condition": name, **summary(played, first)}
            print(
                json.dumps({key: round(v, 2) if isinstance(v, float) else v for key, v in record.items()}), flush=True
            )
            first = first or played


if __name__ == "__main__":
    main()
