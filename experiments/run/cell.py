"""The real work of a unit: load the policy, train it in real Chromium, evaluate it. Here all packages meet."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dllm_rl.files import METRICS_FILE, read_json, read_rows, write_json
from dllm_rl.hub import commit_of
from dllm_rl.policies.adapters import base_of_adapter
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.devices import device_name
from dllm_rl.session import Session
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.engine import RolloutEngine, evaluate
from dllm_rl.training.ranks import ALONE, Ranks, processes_beside
from dllm_rl.training.sharding import gathered
from dllm_rl.training.trainer import Trainer
from experiments.analysis.collapse.online import OnlineDiagnosis
from experiments.design.config import build_objective, build_reward, build_sampler
from experiments.design.grid import Cell
from experiments.design.units import GridPlan, TaskSets, Unit
from experiments.run import policies
from experiments.run.folder import RECORD_FILE
from experiments.run.runner import Executor, OnEvent, ProcessesBrokenError
from experiments.run.snapshots import has_snapshot, is_snapshot, keep_commit_order, take_snapshot
from harness.browser import usable_cores

_LOGGER = logging.getLogger(__name__)


class LocalExecutor:
    """Runs units in this process. All share one environment session, and with it the site server and the browsers.

    Args:
        ranks: Processes that work on each unit together, this one among them.
    """

    def __init__(
        self,
        session: Session,
        tasks: TaskSets,
        *,
        ranks: Ranks = ALONE,
    ) -> None:
        self._session = session
        self._tasks = tasks
        self._ranks = ranks

    def warm_start(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Evaluate the policy as it was before training."""
        self._session.forget_failures()
        self._set_threads(unit.cell)
        policy = self._load(unit.cell)
        self._take_snapshot(unit, policy, 0)
        return self._evaluate(policy, unit, on_event)

    def cell(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Train (or resume) in the unit's folder, then evaluate the last checkpoint: nothing is selected.

        A run that an alarm stops is evaluated as it stands, on the same tasks and noise as every other.
        """
        assert unit.seed is not None, "a warm start is not trained"
        cell = unit.cell
        # What an earlier unit of this process went through must not decide anything here.
        self._session.forget_failures()
        self._set_threads(cell)
        alarms = OnlineDiagnosis(on_alarm=cell.on_alarm, folder=unit.folder)
        is_first = self._ranks.is_first
        stopped_at = self._ranks.from_first(alarms.replay(read_rows(unit.folder / METRICS_FILE)) if is_first else None)
        policy = self._load(cell)
        config = TrainConfig(**cell.train, seed=unit.seed)

        def on_step(row: dict[str, Any]) -> bool:
            on_event(row)
            self._note_training(unit)
            if is_snapshot(row["step"] + 1, config.steps):
                self._take_snapshot(unit, policy, row["step"] + 1)
            return alarms.observe(row)

        engine = RolloutEngine(
            policy=policy,
            sampler=build_sampler(cell.sampler, temperature=config.temperature),
            environment=self._session,
            reward=build_reward(cell.reward),
            notebook=cell.notebook.build(),
            repair=None if cell.repair is None else cell.repair.build(),
            team=policies.load_team(cell.roles, temperature=config.temperature),
        )
        Trainer(
            engine=engine,
            objective=build_objective(cell.objective),
            tasks=self._tasks.training,
            config=config,
            run_dir=unit.folder,
            on_step=on_step,
            on_rollouts=keep_commit_order(unit.folder, config.steps, policy.canvas),
            loading=cell.loading,
        ).train(until=None if stopped_at is None else stopped_at + 1)
        # The last one, where an alarm ended the run between two, or a kill fell on it.
        with gathered(policy.model):
            if is_first and (done := read_rows(unit.folder / METRICS_FILE)):
                self._take_snapshot(unit, policy, done[-1]["step"] + 1)
        return self._evaluate(policy, unit, on_event)

    def _load(self, cell: Cell) -> Any:
        return policies.load(cell.checkpoint, facts=cell.facts, options=cell.loading)

    def _take_snapshot(self, unit: Unit, policy: BasePolicy, step: int) -> None:
        """Take a snapshot in the first process, with browsers of its own. Its errors never fail a run."""
        if not self._ranks.is_first or not unit.has_snapshots or has_snapshot(unit.folder, step):
            return
        settings = unit.cell.evaluation
        engine = replace(self._evaluation_engine(policy, unit.cell), ranks=ALONE)
        try:
            take_snapshot(unit.folder, step, engine=engine, tasks=self._tasks.evaluation, seed=settings.seed)
        except Exception:
            _LOGGER.warning("the snapshot of %s after %d steps is left out", unit.name, step, exc_info=True)

    def _evaluate(self, policy: Any, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        settings = unit.cell.evaluation
        rows = evaluate(
            self._evaluation_engine(policy, unit.cell),
            self._tasks.evaluation,
            num_samples=settings.num_samples,
            seed=settings.seed,
            on_result=lambda done, total: on_event({"evaluated": done, "of": total}),
        )
        self._note(unit, versions=self._versions_of(unit))
        return rows

    def _evaluation_engine(self, policy: BasePolicy, cell: Cell) -> RolloutEngine:
        settings = cell.evaluation
        modes = settings.modes(self._session.environment)
        return RolloutEngine(
            policy=policy,
            sampler=build_sampler(cell.evaluation_sampler or cell.sampler, temperature=settings.temperature),
            environment=self._session,
            reward=build_reward(cell.reward),
            notebook=cell.notebook.build(),
            repair=None if cell.repair is None else cell.repair.build(),
            team=policies.load_team(cell.roles, temperature=settings.temperature),
            ranks=self._ranks,
            isolation=modes["isolation"],
            executor=modes["executor"],
        )

    def _note_training(self, unit: Unit) -> None:
        """Add to cell.json under what the training goes on, where that is another than before."""
        if not self._ranks.is_first:
            return
        record, versions = unit.files.record(), self._versions_of(unit)
        known = [] if record is None else list(record.trained_by)
        if versions not in known:
            # Where plans are known already, the browser starts later than the training.
            others = [made for made in known if not made.items() <= versions.items()]
            self._note(unit, trained_by=[*others, versions])

    def _note(self, unit: Unit, **found: Any) -> None:
        if self._ranks.is_first:
            path = unit.folder / RECORD_FILE
            write_json(path, {**read_json(path), **found})

    def _versions_of(self, unit: Unit) -> dict[str, str]:
        """Versions, with those known only once the environment runs (the browser's) and the policy is loaded."""
        cell = unit.cell
        owned = () if cell.roles is None else cell.roles.own.values()
        loaded = [(cell.checkpoint, cell.loading), *((own.checkpoint, own.loading) for own in owned)]
        found = {**unit.settings["versions"], **self._session.versions, "device": device_name(cell.loading)}
        for checkpoint, loading in loaded:
            base = base_of_adapter(Path(checkpoint)) or checkpoint
            if (commit := commit_of(base, loading.revision)) is not None:
                found[f"checkpoint {base}"] = commit
        return found

    @staticmethod
    def _set_threads(cell: Cell) -> None:
        torch.set_num_threads(cell.threads or max(1, usable_cores() // processes_beside()))


class Leader:
    """Executor of the first process: has the others work on the same unit."""

    def __init__(self, work: Executor, ranks: Ranks) -> None:
        self._work, self._ranks = work, ranks

    def warm_start(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Evaluate a policy as it was before training, each process its share of the rollouts."""
        return self._together("warm_start", unit, on_event)

    def cell(self, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        """Train and evaluate a cell, each process its share of the rollouts."""
        return self._together("cell", unit, on_event)

    def _together(self, what: str, unit: Unit, on_event: OnEvent) -> list[dict[str, Any]]:
        self._ranks.from_first((what, unit.name))
        try:
            return getattr(self._work, what)(unit, on_event)
        except Exception as error:
            # The others wait in the middle of an exchange, from which there is no way back.
            raise ProcessesBrokenError(
                f"{unit.name}: {type(error).__name__}: {error}\nThe unit is recorded as failed, and all processes end. "
                "The same command goes on with the others, and tries this one last."
            ) from error

    def release(self) -> None:
        """Let the others end."""
        self._ranks.from_first(None)


def follow(plan: GridPlan, work: Executor, ranks: Ranks) -> None:
    """Work on each unit that the first process names, until it releases this one."""
    units = {unit.name: unit for unit in plan.units}
    while True:
        order: Any = ranks.from_first(None)
        if order is None:
            return
        what, name = order
        getattr(work, what)(units[name], lambda event: None)
