"""The reinforcement-learning loop: collect, then update the policy on what was collected.

The trainer owns all noise: tasks come from the stream "tasks", completions from (seed, row id), views from "masks"
(`training.update`).
Under `accelerate launch` the processes share a step's rows (`training.ranks`). Each draws the views of all rows, so
that the noise of a row does not depend on the number of processes. The policy decides the device, and what a launcher
is set to decides no number.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dllm_rl import seeding
from dllm_rl.errors import ConfigError
from dllm_rl.files import (
    METRICS_FILE,
    ROLLOUTS_FILE,
    append_rows,
    truncate_rows,
)
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Objective
from dllm_rl.records.tasks import Task
from dllm_rl.records.types import Rollouts
from dllm_rl.registry import families_of
from dllm_rl.training.calls import refuse_roles
from dllm_rl.training.checkpoint import load_state, save_state
from dllm_rl.training.config import (
    TrainConfig,
    refuse_settings,
    refuse_unrecorded,
    refuse_unreplayable,
    require_tracker,
    tracked,
    turn_settings,
)
from dllm_rl.training.correction import refuse_correction
from dllm_rl.training.engine import RolloutBatch, RolloutEngine
from dllm_rl.training.groups import Group, Resampled, grouped, resample, shuffle_rewards, situations, stack_rollouts
from dllm_rl.training.horizon import max_turns_at, refuse_endless_horizon
from dllm_rl.training.intermediate import with_answers, with_step_rewards
from dllm_rl.training.metrics import describe
from dllm_rl.training.optimiser import adamw
from dllm_rl.training.provenance import provenance
from dllm_rl.training.ranks import Ranks, launched_ranks
from dllm_rl.training.reference import Reference, reference_of
from dllm_rl.training.sharding import gathered, shard
from dllm_rl.training.update import Updater, generator

# Raised whenever what is collected, scored or updated changes in its numbers: results are keyed by it.
VERSION = 2
_ON_REQUEST = ("step_rewards", "answers")


class Trainer:
    """Trains one policy with one objective. `train` continues from `run_dir` if a checkpoint is there.

    It refuses the checkpoint of a run with another objective, sampler, reward or setting (CheckpointError).

    Args:
        engine: Makes the rollouts; its policy is trained. Its sampler's temperature must be the configuration's.
        on_step: Gets each row of metrics; where it returns True the state is saved and training ends there.
        on_rollouts: Gets each step's number and first draw. Both are called by the first process alone.
        loading: How the policy was loaded: of it, in how many shards what is trained is kept (`training.sharding`), and
            by which optimiser.
    """

    def __init__(
        self,
        *,
        engine: RolloutEngine,
        objective: Objective,
        tasks: Sequence[Task],
        config: TrainConfig,
        run_dir: Path,
        on_step: Callable[[dict[str, Any]], bool | None] | None = None,
        on_rollouts: Callable[[int, Rollouts], None] | None = None,
        loading: LoadOptions = LoadOptions(),
    ) -> None:
        _check_combination(engine, objective, config)
        policy = self.policy = engine.policy
        self.objective, self.tasks, self.config = objective, list(tasks), config
        self.run_dir, self.on_step, self.on_rollouts = run_dir, on_step, on_rollouts
        require_tracker(config.tracker)
        self.ranks = launched_ranks([str(policy.device)])
        self.engine = replace(engine, ranks=self.ranks)
        _check_share(self.ranks, config)
        reference = reference_of(policy) if objective.needs_ref else None
        if loading.shards > 1:
            _shard(policy, reference, self.ranks)
        self.optimiser = adamw(
            [weight for weight in policy.model.parameters() if weight.requires_grad],
            kind=loading.optimiser,
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
        )
        policy.model.eval()
        self.made_by = provenance(engine, objective, config, loading)
        self.updater = Updater(
            policy=policy,
            objective=objective,
            reference=reference,
            optimiser=self.optimiser,
            ranks=self.ranks,
            seed=config.seed,
            inner_steps=config.inner_steps,
            batch_rows=config.micro_batch_rows,
            max_grad_norm=config.max_grad_norm,
            targets=config.targets,
            normaliser=config.turn_normaliser,
            credit=config.step_credit,
            importance_cap=config.importance_sampling_cap,
        )

    def train(self, *, until: int | None = None) -> None:
        """Run the steps that are still owed; writes metrics, rollouts and checkpoints as it goes.

        Args:
            until: End after this many steps, of the schedule of all.
        """
        self.run_dir.mkdir(parents=True, exist_ok=True)
        tracker = self.config.tracker if self.ranks.is_first else None
        with tracked(tracker, self.run_dir, self.config.model_dump()) as track:
            self._train(self.config.steps if until is None else min(until, self.config.steps), track)

    def _train(self, num_steps: int, track: Callable[[dict[str, Any]], None]) -> None:
        first = load_state(self.run_dir, model=self.policy.model, optimiser=self.optimiser, made_by=self.made_by)
        if self.ranks.is_first:
            for name in (METRICS_FILE, ROLLOUTS_FILE):
                truncate_rows(self.run_dir / name, before_step=first)
        for step in range(first, num_steps):
            row = self._one_step(step)
            self._write(METRICS_FILE, [row])
            track(row)
            is_saved = (step + 1) % self.config.checkpoint_every == 0 or step + 1 == num_steps
            if is_saved:
                self._save(step + 1)
            if self._is_stopped_by(row):
                if not is_saved:
                    self._save(step + 1)
                return

    def _is_stopped_by(self, row: dict[str, Any]) -> bool:
        """Whether on_step, which the first process alone calls, ends the run here."""
        # It may sample, as snapshots do.
        with gathered(self.policy.model):
            is_stopped = self.on_step is not None and self.ranks.is_first and bool(self.on_step(row))
            return self.ranks.from_first(is_stopped)

    def _write(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        if self.ranks.is_first:
            append_rows(self.run_dir / name, rows)

    def _save(self, num_steps: int) -> None:
        save_state(
            self.run_dir,
            step=num_steps,
            model=self.policy.model,
            optimiser=self.optimiser,
            ranks=self.ranks,
            made_by=self.made_by,
        )
        # The others wait until it is written.
        self.ranks.from_first(None)

    def _one_step(self, step: int) -> dict[str, Any]:
        config = self.config
        first = self._run(
            step,
            self._tasks_of(step),
            first_row=step * config.prompts_per_step * config.group_size,
            seed=seeding.derive(config.seed, "sampling"),
        )
        resampled = self._resampled(step, first)
        drawn = (first, *resampled.extra)
        logged = enumerate(rollout for batch in drawn for rollout in batch.rollouts)
        self._write(ROLLOUTS_FILE, [rollout.to_row(step=step, row=number) for number, rollout in logged])
        sampled = self._stacked(grouped(first, config.group_size))
        if self.on_rollouts is not None and self.ranks.is_first:
            self.on_rollouts(step, sampled)
        started = time.perf_counter()
        rollouts = self._stacked(resampled.groups) if config.resample_rounds else sampled
        if config.shuffles_rewards:
            rollouts = shuffle_rewards(rollouts, generator(config.seed, "shuffled-rewards", step))
        with gathered(self.policy.model):
            rollouts, metrics = self._answered(step, resampled.groups, rollouts)
        rate = config.rate_at(step)
        metrics |= self.updater.update(step, rollouts, rate=rate)
        return {
            "step": step,
            **describe(first, grouped(first, config.group_size), sampled, canvas=self.policy.canvas),
            **metrics,
            **resampled.metrics,
            **self._horizon(step),
            "learning_rate": rate,
            "seconds/sampling": sum(part.seconds_sampling for part in drawn),
            "seconds/browser": sum(part.seconds_browser for part in drawn),
            "seconds/update": time.perf_counter() - started,
        }

    def _run(self, step: int, tasks: Sequence[Task], *, first_row: int, seed: int) -> RolloutBatch:
        """`group_size` rollouts of each task, paid as at this step.

        Args:
            first_row: Row id of the first one, by which the noise is keyed.
        """
        repeated = [task for task in tasks for _ in range(self.config.group_size)]
        engine = replace(self.engine.at_step(step), max_turns=max_turns_at(self.config.horizon, step))
        return engine.run(repeated, range(first_row, first_row + len(repeated)), seed=seed)

    def _horizon(self, step: int) -> dict[str, float]:
        limit = max_turns_at(self.config.horizon, step)
        return {} if limit is None else {"turns/limit": float(limit)}

    def _stacked(self, groups: Sequence[Group]) -> Rollouts:
        temperature = self.engine.sampler.temperature
        return stack_rollouts(groups, temperature=temperature, pad_id=self.policy.canvas.pad_id)

    def _resampled(self, step: int, first: RolloutBatch) -> Resampled:
        """The groups to train on: the first draw, or with groups of other tasks in place of those without variance."""
        size, num_rounds = self.config.group_size, self.config.resample_rounds
        if not num_rounds:
            return Resampled(groups=tuple(grouped(first, size)), extra=(), metrics={})
        order = list(self.tasks)
        seeding.python_random(self.config.seed, "resampled-tasks", step).shuffle(order)

        def draw(number: int, tasks: Sequence[Task]) -> RolloutBatch:
            return self._run(
                step, tasks, first_row=0, seed=seeding.derive(self.config.seed, "resampling", step, number)
            )

        return resample(first, draw, order, group_size=size, num_rounds=num_rounds)

    def _answered(self, step: int, groups: Sequence[Group], rollouts: Rollouts) -> tuple[Rollouts, dict[str, float]]:
        """The rollouts with intermediate answers and their rewards, where the objective requires them; and the cost."""
        if not set(_ON_REQUEST) & set(self.objective.requires):
            return rollouts, {}
        environment, noise = self.engine.environment, generator(self.config.seed, "answers", step)
        size = self.config.micro_batch_rows
        if "step_rewards" not in self.objective.requires:
            answered = with_answers(self.policy, rollouts, noise, batch_rows=size)
        elif rollouts.episode_ids is not None:
            asked = situations(groups)
            answered = with_step_rewards(self.policy, rollouts, asked, environment.score_turns, noise, batch_rows=size)
        else:
            tasks = [rollout.task for group in groups for rollout in group]
            answered = with_step_rewards(self.policy, rollouts, tasks, environment.score_many, noise, batch_rows=size)
        return answered.rollouts, answered.metrics

    def _tasks_of(self, step: int) -> list[Task]:
        """The step's tasks: seeded permutations of all tasks, one after another, the same for every objective."""
        chosen = []
        for position in range(step * self.config.prompts_per_step, (step + 1) * self.config.prompts_per_step):
            epoch, index = divmod(position, len(self.tasks))
            order = list(range(len(self.tasks)))
            seeding.python_random(self.config.seed, "tasks", epoch).shuffle(order)
            chosen.append(self.tasks[order[index]])
        return chosen


def _check_combination(engine: RolloutEngine, objective: Objective, config: TrainConfig) -> None:
    policy, sampler = engine.policy, engine.sampler
    if policy.family not in families_of(objective):
        raise ConfigError(
            f"objective '{objective.name}' is not defined on the {policy.family} family. "
            f"It is on: {', '.join(families_of(objective))}."
        )
    if policy.family not in families_of(sampler):
        raise ConfigError(
            f"sampler '{sampler.name}' draws from: {', '.join(families_of(sampler))}, not {policy.family}."
        )
    refuse_unreplayable(type(policy), sampler, objective)
    refuse_correction(config.importance_sampling_cap, type(policy), sampler)
    # Refused before anything is sampled.
    engine.reward.of_policy(policy)
    given = turn_settings(config) + ([] if engine.team is None else ["roles"])
    if given and not engine.environment.is_episodic:
        raise ConfigError(
            f"{', '.join(given)} is about turns of episodes, and these rollouts are whole plans. Leave it out."
        )
    if engine.team is not None:
        refuse_roles(objective, config, is_repaired=engine.repair is not None)
    refuse_endless_horizon(config.horizon, engine.environment.max_turns)
    if sampler.temperature != config.temperature:
        raise ConfigError(
            f"the sampler draws at temperature {sampler.temperature:g} and train.temperature is "
            f"{config.temperature:g}; scores would be those of another distribution. Give both the same."
        )
    refuse_unrecorded(objective, is_episodic=engine.environment.is_episodic)
    refuse_settings(config, objective)
    if any(isinstance(m, torch.nn.Dropout) and m.p > 0 and m.training for m in policy.model.modules()):
        raise ConfigError("the policy scores with live dropout, so ratios would not be 1 on policy. Call model.eval().")


def _shard(policy: BasePolicy, reference: Reference | None, ranks: Ranks) -> None:
    if ranks.is_alone:
        raise ConfigError("loading.shards shards weights over processes, and this one runs alone. Launch several.")
    if not all(weight.requires_grad for weight in policy.model.parameters()):
        raise ConfigError(
            "loading.shards shards what is trained, and this policy trains an adapter, which fits in every process. "
            "Leave it out, or train all weights."
        )
    shard(policy.model)
    if isinstance(reference, BasePolicy):
        shard(reference.model)


def _check_share(ranks: Ranks, config: TrainConfig) -> None:
    if config.prompts_per_step * config.group_size < ranks.count:
        raise ConfigError(
            f"a step has {config.prompts_per_step} prompts x {config.group_size} rollouts, too few for {ranks.count} "
            "processes. Launch fewer, or raise train.prompts_per_step."
        )
