"""What a grid will cost: rollouts by kind, and wall time on two idle cores, from runs of the built-in policies.

docs/results/run_times.md says which runs the figures are from, and how the estimates compare with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dllm_rl import registry
from experiments.design.config import build_objective
from experiments.design.grid import Cell
from harness.environments import BrowserEnvironment

# Seconds a rollout, with two threads. An update skips the rows of groups without variance, and scores equal rows once.
SAMPLE_SECONDS = {"autoregressive": 0.017, "masked": 0.033, "slot": 0.026, "flow": 0.067}
UPDATE_SECONDS_PER_VIEW = {"autoregressive": 0.0065, "masked": 0.0065, "slot": 0.0065, "flow": 0.0095}
UNKNOWN_SAMPLE_SECONDS, UNKNOWN_UPDATE_SECONDS = 0.1, 0.02
# The same cell with one thread instead of two, sampling and updates alike.
ONE_THREAD = 1.4
# Keyed by where training rollouts run.
TRAIN_BROWSER_SECONDS = {"arena": 0.045, "page": 0.08, "origin": 0.12, "context": 0.13}
EVALUATION_BROWSER_SECONDS = 0.18
# Of a trained cell's rollouts where plans that were executed in the grid before are not run again.
EXECUTED_SHARE = 0.35
# Of an episode, where a task takes several; a whole plan is one.
TURNS_AN_EPISODE = 4
# About a control, each of which a Grounder is asked for.
LINES_A_TURN = 3
# Three greedy plans, their rollouts and their films.
SNAPSHOT_SECONDS = 1.0
# Text-only toys have no browser and a policy of two small layers; roughly, from one run.
TEXT_ROLLOUT_SECONDS, TEXT_UPDATE_SECONDS_PER_VIEW, TEXT_START_SECONDS = 0.002, 0.0005, 5.0
# For an objective with one view a step, if the sampler does not state its number of steps.
UNKNOWN_VIEWS = 32
# Loading a policy, opening a cell's files and writing its checkpoint.
START_SECONDS = 2.0
BROWSER_START_SECONDS = 5.0
REPORT_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Rollouts and seconds of one unit of work."""

    train_rollouts: int = 0
    evaluation_rollouts: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            train_rollouts=self.train_rollouts + other.train_rollouts,
            evaluation_rollouts=self.evaluation_rollouts + other.evaluation_rollouts,
            seconds=self.seconds + other.seconds,
        )


def snapshot_cost(num_steps: int) -> Cost:
    """Time of the plans and films along a training run; of its start alone where it has no steps."""
    from experiments.run.snapshots import is_snapshot

    taken = [step for step in range(1, num_steps + 1) if is_snapshot(step, num_steps)] or [0]
    return Cost(seconds=SNAPSHOT_SECONDS * len(taken))


def evaluation_cost(cell: Cell, num_tasks: int, *, is_warm_start: bool = False) -> Cost:
    """Cost of one evaluation: k sampled rollouts and a greedy one for every task; a warm start's come first."""
    rollouts = num_tasks * (cell.evaluation.num_samples + 1)
    if not _has_browser(cell):
        return Cost(evaluation_rollouts=rollouts, seconds=rollouts * TEXT_ROLLOUT_SECONDS + TEXT_START_SECONDS)
    sample = SAMPLE_SECONDS.get(cell.family, UNKNOWN_SAMPLE_SECONDS) * _slowness(cell) * _num_calls(cell)
    executed = 1.0 if is_warm_start else _executed(cell)
    seconds = rollouts * (sample + EVALUATION_BROWSER_SECONDS * executed) * _num_turns(cell)
    return Cost(evaluation_rollouts=rollouts, seconds=seconds + START_SECONDS)


def training_cost(cell: Cell) -> Cost:
    """Cost of one seed of training."""
    train = cell.train
    rollouts = train["steps"] * train["prompts_per_step"] * train["group_size"]
    objective = build_objective(cell.objective)
    views = 1 if registry.get("policy", cell.family).is_exact else objective.num_views or _num_steps(cell)
    is_text = not _has_browser(cell)
    per_view = UPDATE_SECONDS_PER_VIEW.get(cell.family, UNKNOWN_UPDATE_SECONDS)
    # Old scores are one forward, about a third of a forward and backward.
    update = (TEXT_UPDATE_SECONDS_PER_VIEW if is_text else per_view) * views * (train["inner_steps"] + 1 / 3)
    if is_text:
        return Cost(train_rollouts=rollouts, seconds=rollouts * (TEXT_ROLLOUT_SECONDS + update))
    # Asking for the answer of every step takes about the forwards of sampling once more.
    asked = 2 if "answers" in objective.requires else 1
    sample = SAMPLE_SECONDS.get(cell.family, UNKNOWN_SAMPLE_SECONDS) * asked
    browser = TRAIN_BROWSER_SECONDS[cell.environment.options.get("isolation", "page")]
    written = (sample + update) * _slowness(cell) * _num_calls(cell)
    seconds = rollouts * (written + browser * _executed(cell)) * _num_turns(cell)
    return Cost(train_rollouts=rollouts, seconds=seconds + START_SECONDS)


def _has_browser(cell: Cell) -> bool:
    return issubclass(registry.get("environment", cell.environment.name), BrowserEnvironment)


def _executed(cell: Cell) -> float:
    """Share of a cell's rollouts that the browser runs."""
    return EXECUTED_SHARE if cell.environment.options.get("caches_outcomes") else 1.0


def _num_turns(cell: Cell) -> int:
    return TURNS_AN_EPISODE if registry.get("environment", cell.environment.name).is_episodic else 1


def _num_calls(cell: Cell) -> int:
    """Completions that a turn is written in. A Summarizer has one an episode, and is not counted."""
    if cell.roles is None:
        return 1
    return 1 + cell.roles.reflector + cell.roles.grounder * LINES_A_TURN


def _num_steps(cell: Cell) -> int:
    """Steps in which the cell's sampler writes a completion."""
    sampler = registry.identity("sampler", cell.sampler.name, cell.sampler.options)
    return sampler["options"].get("num_steps") or UNKNOWN_VIEWS


def _slowness(cell: Cell) -> float:
    return ONE_THREAD if cell.threads == 1 else 1.0


def design_cost(cells: Sequence[Cell], num_seeds: int, num_tasks: int) -> Cost:
    """Cost of a whole grid: each policy's warm start once, each cell once a seed."""
    policies = {cell.policy: cell for cell in cells}
    warm = sum((evaluation_cost(cell, num_tasks, is_warm_start=True) for cell in policies.values()), start=Cost())
    runs = [training_cost(cell) + evaluation_cost(cell, num_tasks) for cell in cells for _ in range(num_seeds)]
    return sum(runs, start=warm)
