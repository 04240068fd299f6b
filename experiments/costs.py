"""What a grid will cost: rollouts by kind, and time from a table measured with the built-in policies on two cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.grid import Cell

# Seconds a rollout, from processor time of one thread; another machine scales all of them alike.
SAMPLE_SECONDS = {"autoregressive": 0.015, "masked": 0.11, "slot": 0.02, "flow": 0.11}
UPDATE_SECONDS_PER_VIEW = {"autoregressive": 0.008, "masked": 0.013, "slot": 0.016, "flow": 0.017}
UNKNOWN_SAMPLE_SECONDS, UNKNOWN_UPDATE_SECONDS = 0.1, 0.015
TRAIN_BROWSER_SECONDS = 0.09
EVALUATION_BROWSER_SECONDS = 0.28
# Text-only toys have no browser and a policy of two small layers; roughly, from one run.
TEXT_ENVIRONMENTS = ("toy_sort", "toy_copy")
TEXT_ROLLOUT_SECONDS, TEXT_UPDATE_SECONDS_PER_VIEW, TEXT_START_SECONDS = 0.002, 0.0005, 5.0
# Views that an objective scores for each rollout in one inner step where likelihoods are not exact; else one.
VIEWS = {"cj_grpo": 4, "flow_grpo": 4, "mdpo": 4, "espo": 2, "espo_unshared": 4}
# Asking for the answer of every step takes about the forwards of sampling once more.
ANSWERS = ("mdpo",)
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


def evaluation_cost(cell: Cell, num_tasks: int) -> Cost:
    """Cost of one evaluation: k sampled rollouts and a greedy one for every task."""
    rollouts = num_tasks * (cell.evaluation.num_samples + 1)
    if cell.environment.name in TEXT_ENVIRONMENTS:
        return Cost(evaluation_rollouts=rollouts, seconds=rollouts * TEXT_ROLLOUT_SECONDS + TEXT_START_SECONDS)
    seconds = rollouts * (SAMPLE_SECONDS.get(cell.family, UNKNOWN_SAMPLE_SECONDS) + EVALUATION_BROWSER_SECONDS)
    return Cost(evaluation_rollouts=rollouts, seconds=seconds + START_SECONDS)


def training_cost(cell: Cell) -> Cost:
    """Cost of one seed of training."""
    train = cell.train
    rollouts = train["steps"] * train["prompts_per_step"] * train["group_size"]
    views = 1 if cell.family == "autoregressive" else VIEWS.get(cell.objective.name, 1)
    is_text = cell.environment.name in TEXT_ENVIRONMENTS
    per_view = UPDATE_SECONDS_PER_VIEW.get(cell.family, UNKNOWN_UPDATE_SECONDS)
    # Old scores are one forward, about a third of a forward and backward.
    update = (TEXT_UPDATE_SECONDS_PER_VIEW if is_text else per_view) * views * (train["inner_steps"] + 1 / 3)
    if is_text:
        return Cost(train_rollouts=rollouts, seconds=rollouts * (TEXT_ROLLOUT_SECONDS + update))
    sample = SAMPLE_SECONDS.get(cell.family, UNKNOWN_SAMPLE_SECONDS) * (2 if cell.objective.name in ANSWERS else 1)
    seconds = rollouts * (sample + TRAIN_BROWSER_SECONDS + update)
    return Cost(train_rollouts=rollouts, seconds=seconds + START_SECONDS)


def design_cost(cells: Sequence[Cell], num_seeds: int, num_tasks: int) -> Cost:
    """Cost of a whole grid: each policy's warm start once, each cell once a seed."""
    policies = {cell.policy: cell for cell in cells}
    warm = sum((evaluation_cost(cell, num_tasks) for cell in policies.values()), start=Cost())
    runs = [training_cost(cell) + evaluation_cost(cell, num_tasks) for cell in cells for _ in range(num_seeds)]
    return sum(runs, start=warm)
