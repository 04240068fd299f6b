"""The reinforcement-learning loop on accelerate: collect, then update the policy on what was collected.

The trainer owns all noise: tasks come from the stream "tasks", completions from (seed, row id), views from "masks"
(`dllm_rl.update`).
Under `accelerate launch` the processes share a step's rows (`dllm_rl.ranks`). Each draws the views of all rows, so that
the noise of a row does not depend on the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field

from dllm_rl import seeding
from dllm_rl.answers import with_step_rewards
from dllm_rl.checkpoint import load_state, save_state
from dllm_rl.commit_order import commit_order, marked_steps
from dllm_rl.early_stop import Targets
from dllm_rl.errors import ConfigError
from dllm_rl.generators import generator
from dllm_rl.jsonl import (
    COMMITS_FILE,
    METRICS_FILE,
    ROLLOUTS_FILE,
    append_rows,
    truncate_rows,
)
from dllm_rl.metrics import describe
from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Objective, Sampler
from dllm_rl.ranks import Ranks
from dllm_rl.reference import reference_of
from dllm_rl.resampling import Resampled, resample
from dllm_rl.rollout import Collected, EnvironmentLike, RewardFunction, collect
from dllm_rl.tasks import Task
from dllm_rl.trackers import Tracker, require_tracker, trackable, tracked
from dllm_rl.types import Rollouts
from dllm_rl.update import Updater

_ALWAYS = ("trajectory", "temperature")
_ON_REQUEST = ("step_rewards", "answers")


class TrainConfig(BaseModel):
    """Settings of a training run. learning_rate 0 trains nothing and is the null control.

    adam_epsilon: floor under AdamW's divisor. Policy gradients of a small policy are near 1e-4 a weight, far smaller
    at embeddings that a batch hardly touches; with 1e-8 those take full steps of noise (docs/lab_notebook.md).
    lr_scheduler_type (transformers' name): `linear` falls to zero over the run, and with it the last weights' noise.
    tracker: metrics go there too, beside metrics.jsonl; it changes no number.
    micro_batch_rows: rows x views whose activations are held at a time; decides memory, not the result.
    target_log_ratio, target_kl: end the inner updates on a batch where the mean abs(log new/old) a scored term, or the
    estimated KL(old, new), passes it (dllm_rl.early_stop). resample_rounds: times that groups without variance are
    replaced by groups of other tasks (dllm_rl.resampling); it spends rollouts that other methods do not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(20, ge=0)
    prompts_per_step: int = Field(8, ge=1)
    group_size: int = Field(8, ge=2)
    inner_steps: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    temperature: float = Field(1.0, gt=0)
    seed: int = 0
    micro_batch_rows: int = Field(32, ge=1)
    checkpoint_every: int = Field(5, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    adam_epsilon: float = Field(1e-8, gt=0)
    warmup_steps: int = Field(0, ge=0)
    lr_scheduler_type: Literal["constant", "linear"] = "constant"
    tracker: Tracker | None = None
    target_log_ratio: float | None = Field(None, gt=0)
    target_kl: float | None = Field(None, gt=0)
    resample_rounds: int = Field(0, ge=0, le=16)

    @property
    def targets(self) -> Targets:
        """Where the inner updates end early."""
        return Targets(log_ratio=self.target_log_ratio, kl=self.target_kl)


class Trainer:
    """Trains one policy with one objective. `train` continues from `run_dir` if a checkpoint is there.

    on_step gets each row of metrics; where it returns True the state is saved and training ends there.
    """

    def __init__(
        self,
        *,
        policy: BasePolicy,
        sampler: Sampler,
        objective: Objective,
        environment: EnvironmentLike,
        reward: RewardFunction,
        tasks: Sequence[Task],
        config: TrainConfig,
        run_dir: Path,
        on_step: Callable[[dict[str, Any]], bool | None] | None = None,
    ) -> None:
        _check_combination(policy, sampler, objective, config)
        self.policy, self.sampler, self.objective = policy, sampler, objective
        self.environment, self.reward, self.tasks, self.config = environment, reward, list(tasks), config
        self.run_dir, self.on_step = run_dir, on_step
        require_tracker(config.tracker)
        self.accelerator = Accelerator(
            cpu=policy.device.type == "cpu", log_with=config.tracker, project_dir=str(run_dir)
        )
        self.ranks = Ranks.of(self.accelerator.state)
        _check_share(self.ranks, config)
        optimiser = torch.optim.AdamW(
            [weight for weight in policy.model.parameters() if weight.requires_grad],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
        )
        # Prepared as for evaluation, so without a wrapper that averages gradients: `Ranks` adds them up.
        self.accelerator.prepare_model(policy.model, evaluation_mode=True)
        self.optimiser = self.accelerator.prepare_optimizer(optimiser)
        policy.model.eval()
        self.updater = Updater(
            policy=policy,
            objective=objective,
            reference=reference_of(policy) if objective.needs_ref else None,
            optimiser=self.optimiser,
            accelerator=self.accelerator,
            ranks=self.ranks,
            seed=config.seed,
            inner_steps=config.inner_steps,
            batch_rows=config.micro_batch_rows,
            max_grad_norm=config.max_grad_norm,
            targets=config.targets,
        )

    def train(self, *, until: int | None = None) -> None:
        """Run the steps that are still owed; writes metrics, rollouts and checkpoints as it goes.

        until: end after this many steps, of the schedule of all.
        """
        self.run_dir.mkdir(parents=True, exist_ok=True)
        with tracked(self.accelerator, self.run_dir, self.config.model_dump()):
            self._train(self.config.steps if until is None else min(until, self.config.steps))

    def _train(self, num_steps: int) -> None:
        first = load_state(self.run_dir, model=self.policy.model, optimiser=self.optimiser)
        if self.ranks.is_first:
            for name in (METRICS_FILE, ROLLOUTS_FILE, COMMITS_FILE):
                truncate_rows(self.run_dir / name, before_step=first)
        for step in range(first, num_steps):
            row = self._one_step(step)
            self._write(METRICS_FILE, [row])
            self.accelerator.log(trackable(row), step=step)
            is_saved = (step + 1) % self.config.checkpoint_every == 0 or step + 1 == num_steps
            if is_saved:
                self._save(step + 1)
            if self._is_stopped_by(row):
                if not is_saved:
                    self._save(step + 1)
                return

    def _is_stopped_by(self, row: dict[str, Any]) -> bool:
        """Whether on_step, which the first process alone calls, ends the run here."""
        is_stopped = self.on_step is not None and self.ranks.is_first and bool(self.on_step(row))
        return self.ranks.from_first(is_stopped)

    def _write(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        if self.ranks.is_first:
            append_rows(self.run_dir / name, rows)

    def _save(self, num_steps: int) -> None:
        if self.ranks.is_first:
            save_state(self.run_dir, step=num_steps, model=self.policy.model, optimiser=self.optimiser)
        self.accelerator.wait_for_everyone()

    def _one_step(self, step: int) -> dict[str, Any]:
        config = self.config
        collected = self._collect(
            self._tasks_of(step),
            first_row=step * config.prompts_per_step * config.group_size,
            seed=seeding.derive(config.seed, "sampling"),
        )
        batch = self._resampled(step, collected)
        drawn = (collected, *batch.extra)
        self._write(ROLLOUTS_FILE, _log_rows(step, drawn))
        if step in marked_steps(config.steps):
            self._write(COMMITS_FILE, [{"step": step, **commit_order(collected.rollouts)}])
        started = time.perf_counter()
        rollouts, metrics = self._answered(step, batch)
        rate = self._rate(step)
        metrics |= self.updater.update(step, rollouts, rate=rate)
        return {
            "step": step,
            **describe(collected),
            **metrics,
            **batch.metrics,
            "learning_rate": rate,
            "seconds/sampling": sum(part.seconds_sampling for part in drawn),
            "seconds/browser": sum(part.seconds_browser for part in drawn),
            "seconds/update": time.perf_counter() - started,
        }

    def _collect(self, tasks: Sequence[Task], *, first_row: int, seed: int) -> Collected:
        return collect(
            policy=self.policy,
            sampler=self.sampler,
            environment=self.environment,
            reward=self.reward,
            tasks=tasks,
            group_size=self.config.group_size,
            first_row=first_row,
            seed=seed,
            temperature=self.config.temperature,
            ranks=self.ranks,
        )

    def _resampled(self, step: int, first: Collected) -> Resampled:
        """The batch to train on: the first draw, or with groups of other tasks in place of those without variance."""
        if not self.config.resample_rounds:
            return Resampled(rollouts=first.rollouts, tasks=first.tasks, extra=(), metrics={})
        order = list(self.tasks)
        seeding.python_random(self.config.seed, "resampled-tasks", step).shuffle(order)

        def draw(number: int, tasks: Sequence[Task]) -> Collected:
            seed = seeding.derive(self.config.seed, "resampling", step, number)
            return self._collect(tasks, first_row=0, seed=seed)

        pad_id = self.policy.canvas.pad_id
        return resample(first, draw, order, num_rounds=self.config.resample_rounds, pad_id=pad_id)

    def _answered(self, step: int, batch: Resampled) -> tuple[Rollouts, dict[str, float]]:
        """The rollouts with rewards of intermediate answers, where the objective requires them, and their cost."""
        if "step_rewards" not in self.objective.requires:
            return batch.rollouts, {}
        answered = with_step_rewards(
            self.policy,
            batch.rollouts,
            batch.tasks,
            self.environment.score_many,
            generator(self.config.seed, "answers", step),
            batch_rows=self.config.micro_batch_rows,
        )
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

    def _rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then constant or falling to zero at the end."""
        warmup, steps = self.config.warmup_steps, self.config.steps
        rising = (step + 1) / warmup if warmup else 1.0
        is_falling = self.config.lr_scheduler_type == "linear" and steps > warmup
        falling = (steps - step) / (steps - warmup) if is_falling else 1.0
        return self.config.learning_rate * min(1.0, rising, falling)


def _check_combination(policy: BasePolicy, sampler: Sampler, objective: Objective, config: TrainConfig) -> None:
    if policy.family not in objective.families:
        raise ConfigError(
            f"objective '{objective.name}' is not defined on the {policy.family} family. "
            f"It is on: {', '.join(objective.families)}."
        )
    if policy.family not in sampler.families:
        raise ConfigError(f"sampler '{sampler.name}' draws from: {', '.join(sampler.families)}, not {policy.family}.")
    lacking = sorted(set(objective.requires) - {*_ALWAYS, *_ON_REQUEST})
    if lacking:
        names = ", ".join(lacking)
        raise ConfigError(f"objective '{objective.name}' needs {names}, which this trainer does not record.")
    limit = objective.max_inner_steps
    if limit is not None and config.inner_steps > limit:
        raise ConfigError(
            f"objective '{objective.name}' allows at most {limit} inner steps; given inner_steps={config.inner_steps}."
        )
    if config.resample_rounds and objective.needs_flat_groups:
        raise ConfigError(
            f"resample_rounds={config.resample_rounds} replaces groups whose rewards are all equal, but with "
            f"objective '{objective.name}' as it is set they have a gradient (a KL penalty, or a regression). "
            "Set beta=0 where there is one, or resample_rounds=0."
        )
    if any(isinstance(m, torch.nn.Dropout) and m.p > 0 and m.training for m in policy.model.modules()):
        raise ConfigError("the policy scores with live dropout, so ratios would not be 1 on policy. Call model.eval().")


def _check_share(ranks: Ranks, config: TrainConfig) -> None:
    if config.prompts_per_step * config.group_size < ranks.count:
        raise ConfigError(
            f"a step has {config.prompts_per_step} prompts x {config.group_size} rollouts, too few for {ranks.count} "
            "processes. Launch fewer, or raise train.prompts_per_step."
        )


def _log_rows(step: int, drawn: Sequence[Collected]) -> list[dict[str, Any]]:
    rows = [row for part in drawn for row in zip(part.tasks, part.plans, part.outcomes, part.rewards, strict=True)]
    return [
        {
            "step": step,
            "row": number,
            "task_id": task.id,
            "plan": plan,
            "reward": float(reward.value),
            "success": bool(reward.is_success),
            "submitted": bool(outcome.is_submitted),
            "near_miss": bool(reward.is_near_miss),
            "fault": str(outcome.fault.value),
        }
        for number, (task, plan, outcome, reward) in enumerate(rows)
    ]
