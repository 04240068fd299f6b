"""Units of work of a grid: each policy's warm start once, each cell once a seed; their folders are keyed by digests.

Results are keyed by names, options and declared versions, never by source text. Whoever changes a number raises the
`version` of the component that it comes from (`tests/test_versions.py` reminds). Training and evaluation have digests
of their own, so that a new evaluation never retrains."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import dllm_rl
from dllm_rl import registry
from dllm_rl.errors import ConfigError, MissingFileError
from dllm_rl.records.tasks import Task
from dllm_rl.session import Session
from experiments.design.base import Component
from experiments.design.config import Preset, build_reward, build_sampler
from experiments.design.costs import Cost, evaluation_cost, snapshot_cost, training_cost
from experiments.design.grid import Cell, build_cells
from experiments.design.turns import identity_of_turns
from experiments.run.folder import RunFolder, UnitFolder, place_of_cell, place_of_warm_start
from experiments.run.records import CellRecord, GridRecord, RecordedEvaluation
from experiments.run.results import UnitKey

# The margin of equivalence is the judge's: no rollout depends on it.
_JUDGED = {"margin"}


def digest(value: Any) -> str:
    """Hash of JSON-like data; the order of keys has no influence."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def task_digest(tasks: Sequence[Task]) -> str:
    """Hash of a task set: every instruction, site and gold value, in order."""
    return digest([asdict(task) for task in tasks])


def training_digest(cell: Cell, *, checkpoint: str, tasks: str) -> str:
    """Key of a trained cell.

    Args:
        checkpoint: Digest of the warm start.
        tasks: Digest of the training tasks.
    """
    from dllm_rl.training.trainer import VERSION

    known = _start(cell, checkpoint) | {
        "trainer": VERSION,
        "train": {name: value for name, value in cell.train.items() if not _has_no_part(name, value)},
        "tasks": tasks,
        "objective": _component("objective", cell.objective),
    }
    # Logging and raising change no number of a run that ends. Where an alarm ends it, what raises alarms decides.
    if cell.on_alarm == "stop":
        from experiments.analysis.collapse.detectors import VERSION as DETECTORS

        known |= {"on_alarm": "stop", "detectors": DETECTORS}
    return digest(known)


def _has_no_part(name: str, value: Any) -> bool:
    """A setting of training that changes no number: a tracker, and one that came later and is as usual."""
    from dllm_rl.training.config import TURN_SETTINGS

    later = {**TURN_SETTINGS, "importance_sampling_cap": None}
    return name == "tracker" or (name in later and later[name] == value)


def evaluation_digest(cell: Cell, *, training: str, tasks: str) -> str:
    """Key of a trained cell's evaluation.

    Args:
        tasks: Digest of the evaluated tasks.
    """
    return digest({"training": training, "tasks": tasks, **_evaluated(cell)})


def warm_start_digest(cell: Cell, *, checkpoint: str, tasks: str) -> str:
    """Key of a warm start's evaluation, which all cells of a policy share."""
    return digest(_start(cell, checkpoint) | {"tasks": tasks, **_evaluated(cell)})


def _start(cell: Cell, checkpoint: str) -> dict[str, Any]:
    """What training and the evaluation of the warm start have in common. The checkpoint stands for itself."""
    return {
        "checkpoint": checkpoint,
        "policy": {"name": cell.family, "version": registry.get("policy", cell.family).version, "facts": cell.facts},
        **({"loading": cell.loading.deciding} if cell.loading.deciding else {}),
        "sampler": _sampler(cell.sampler),
        "environment": _component("environment", cell.environment),
        "reward": _reward(cell.reward),
        "threads": cell.threads,
        **identity_of_turns(cell.notebook, cell.repair, cell.roles),
    }


def _evaluated(cell: Cell) -> dict[str, Any]:
    """How the evaluation is run, with its sampler where that is another than training's."""
    from dllm_rl.training.engine import EVALUATION_VERSION

    settings = cell.evaluation.model_dump(mode="json", exclude=_JUDGED)
    other = cell.evaluation_sampler
    return {
        "evaluation": {"version": EVALUATION_VERSION, **settings},
        "evaluation_sampler": None if other is None else _sampler(other),
    }


def _component(kind: str, component: Component) -> dict[str, Any]:
    return registry.identity(kind, component.name, component.options)


def _sampler(component: Component) -> dict[str, Any]:
    """Identity of a sampler, with that of what guides it."""
    from samplers import UnmaskingRule

    sampler = build_sampler(component)
    ingredients = sampler.ingredients() if isinstance(sampler, UnmaskingRule) else []
    return _component("sampler", component) | ({"ingredients": ingredients} if ingredients else {})


def _reward(component: Component) -> dict[str, Any]:
    """Identity of a reward, with that of what it is made of."""
    try:
        ingredients = build_reward(component).ingredients()
    except MissingFileError as error:
        ingredients = [f"not there: {error.path}"]
    return _component("reward", component) | ({"ingredients": ingredients} if ingredients else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSets:
    """The tasks that a preset trains on and those that it evaluates on."""

    training: tuple[Task, ...]
    evaluation: tuple[Task, ...]

    @classmethod
    def of(cls, preset: Preset, session: Session) -> TaskSets:
        """Read the first `max_tasks` tasks of the preset's two splits."""
        trained, evaluated = preset.training_tasks, preset.evaluation
        return cls(
            training=tuple(session.tasks(trained.split)[: trained.max_tasks]),
            evaluation=tuple(session.tasks(evaluated.split)[: evaluated.max_tasks]),
        )

    def without(self, excluded: Collection[str]) -> TaskSets:
        """Leave out tasks by id. They are not replaced by later ones."""
        return TaskSets(
            training=tuple(task for task in self.training if task.id not in excluded),
            evaluation=tuple(task for task in self.evaluation if task.id not in excluded),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One thing to run: a warm start's evaluation (seed None), or the training and evaluation of one seed of a cell.

    Attributes:
        digest: Of the evaluation. The unit is done once its status carries it.
        settings: What is written to cell.json.
        has_snapshots: Whether snapshots of its plans are taken (`experiments.run.snapshots`); no number depends on it.
    """

    cell: Cell
    seed: int | None
    folder: Path
    digest: str
    cost: Cost
    settings: dict[str, Any]
    has_snapshots: bool = False

    @property
    def key(self) -> UnitKey:
        """Which unit it is, as its rows say."""
        if self.seed is None:
            return UnitKey(policy=self.cell.policy)
        return UnitKey(policy=self.cell.policy, cell=self.cell.id, seed=self.seed)

    @property
    def is_warm_start(self) -> bool:
        """True for the evaluation of a policy before any training."""
        return self.key.is_warm_start

    @property
    def name(self) -> str:
        """Name for people."""
        return self.key.name

    @property
    def files(self) -> UnitFolder:
        """Its files, as far as this evaluation goes."""
        return UnitFolder(key=self.key, path=self.folder, digest=self.digest)

    @property
    def labels(self) -> dict[str, Any]:
        """Columns that are equal in all rows of this unit."""
        if self.is_warm_start:
            return {**self.key.columns, "objective": "", "role": ""}
        return {**self.key.columns, "objective": self.cell.objective_level, "role": self.cell.role}


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPlan:
    """A preset resolved against the task sets and checkpoints of this machine.

    Attributes:
        chosen: Names of the units that this command may run; None is all. The others stay as they are, and no digest
            depends on it: what is run first is a matter of time, not of the design.
    """

    preset: Preset
    cells: tuple[Cell, ...]
    units: tuple[Unit, ...]
    folder: RunFolder
    chosen: frozenset[str] | None = None

    @property
    def root(self) -> Path:
        """Where the run lies."""
        return self.folder.root

    @property
    def config(self) -> GridRecord:
        """What is written to config.json."""
        return self.folder.config

    @property
    def cost(self) -> Cost:
        """Cost of the whole grid from nothing."""
        return sum((unit.cost for unit in self.units), start=Cost())

    def is_chosen(self, unit: Unit) -> bool:
        """Whether this command may run the unit."""
        return self.chosen is None or unit.name in self.chosen


def choose(plan: GridPlan, patterns: Sequence[str]) -> GridPlan:
    """The plan whose command runs only units that a pattern names, and the warm starts that these are compared with.

    Args:
        patterns: `masked-*`, `*-espo`, `masked-grpo seed 0`; of a cell's id or a unit's name. None of them: all units.

    Raises ConfigError where a pattern names nothing.
    """
    if not patterns:
        return plan
    chosen: set[str] = set()
    for pattern in patterns:
        found = [unit for unit in plan.units if _is_named(unit, pattern)]
        if not found:
            known = ", ".join(cell.id for cell in plan.cells)
            several = " For several, give --only once for each." if "," in pattern else ""
            raise ConfigError(
                f"--only '{pattern}' names no unit of this grid. Give a cell or a pattern of cells, such as "
                f"'{plan.cells[0].policy}-*' or '{plan.units[-1].name}'. Cells: {known}.{several}"
            )
        policies = {unit.cell.policy for unit in found}
        chosen |= {unit.name for unit in found}
        chosen |= {unit.name for unit in plan.units if unit.is_warm_start and unit.cell.policy in policies}
    return replace(plan, chosen=frozenset(chosen))


def _is_named(unit: Unit, pattern: str) -> bool:
    return fnmatchcase(unit.name, pattern) or (not unit.is_warm_start and fnmatchcase(unit.cell.id, pattern))


def plan_grid(preset: Preset, tasks: TaskSets, root: Path) -> GridPlan:
    """Resolve a preset: cells, digests, folders, costs and the configuration that is saved beside the results."""
    from dllm_rl.policies.checkpoints import checkpoint_digest

    cells = build_cells(preset)
    keys = {level.checkpoint: checkpoint_digest(level.checkpoint) for level in preset.policies.values()}
    train_key, evaluation_key = task_digest(tasks.training), task_digest(tasks.evaluation)
    # Versions of the command that ran the unit last; config.json may tell of a later one.
    made_by = {"versions": versions()}
    warm: dict[str, Unit] = {}
    trained: list[Unit] = []
    folders: dict[str, str] = {}
    for cell in cells:
        if cell.policy not in warm:
            start = _warm_start(cell, root, keys[cell.checkpoint], evaluation_key, len(tasks.evaluation))
            warm[cell.policy] = replace(start, settings=start.settings | made_by)
        key = training_digest(cell, checkpoint=keys[cell.checkpoint], tasks=train_key)
        folders[cell.id] = place_of_cell(cell.id, key)
        final_key = evaluation_digest(cell, training=key, tasks=evaluation_key)
        settings = {"training_digest": key, "digest": final_key, **cell.model_dump(mode="json")}
        for seed in preset.seeds:
            has_snapshots = seed == preset.seeds[0]
            trained.append(
                Unit(
                    cell=cell,
                    seed=seed,
                    folder=root / folders[cell.id] / f"seed{seed}",
                    digest=final_key,
                    cost=training_cost(cell)
                    + evaluation_cost(cell, len(tasks.evaluation))
                    + (snapshot_cost(cell.train["steps"]) if has_snapshots else Cost()),
                    settings={"seed": seed, **settings, **made_by},
                    has_snapshots=has_snapshots,
                )
            )
    # Seed by seed, so that an unfinished grid already holds every cell.
    trained.sort(key=lambda unit: preset.seeds.index(unit.settings["seed"]))
    units = (*warm.values(), *trained)
    config = _config(preset, cells, units, folders, root, {"train": train_key, "evaluation": evaluation_key, **keys})
    return GridPlan(preset=preset, cells=tuple(cells), units=units, folder=RunFolder(root, config))


def _warm_start(cell: Cell, root: Path, checkpoint: str, tasks: str, num_tasks: int) -> Unit:
    key = warm_start_digest(cell, checkpoint=checkpoint, tasks=tasks)
    return Unit(
        cell=cell,
        seed=None,
        folder=root / place_of_warm_start(cell.policy, key),
        digest=key,
        cost=evaluation_cost(cell, num_tasks, is_warm_start=True) + snapshot_cost(0),
        settings={"digest": key, "checkpoint": cell.checkpoint, "evaluation": cell.evaluation.model_dump(mode="json")},
        has_snapshots=True,
    )


def _config(
    preset: Preset,
    cells: list[Cell],
    units: tuple[Unit, ...],
    folders: dict[str, str],
    root: Path,
    keys: dict[str, str],
) -> GridRecord:
    """What is written to config.json: everything that the results depend on, and where each cell's folder is."""
    evaluations = {unit.cell.id: unit.digest for unit in units if not unit.is_warm_start}
    # -1 stands for a warm start, so that grids keep the digest that they had.
    seeds = [-1 if unit.seed is None else unit.seed for unit in units]
    return GridRecord(
        preset=preset.name,
        description=preset.description,
        digest=digest([unit.digest for unit in units] + seeds),
        seeds=tuple(preset.seeds),
        evaluation=RecordedEvaluation(**preset.evaluation.model_dump()),
        cells=tuple(
            CellRecord(
                id=cell.id,
                policy=cell.policy,
                objective=cell.objective_level,
                role=cell.role,
                is_positive_control=cell.is_positive_control,
                folder=folders[cell.id],
                options=cell.objective.options,
                digest=evaluations[cell.id],
            )
            for cell in cells
        ),
        warm_starts={unit.cell.policy: str(unit.folder.relative_to(root)) for unit in units if unit.is_warm_start},
        settings=preset.model_dump(mode="json"),
        digests=keys,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of what decides numbers; of the processor its vector instructions, by which sums round differently."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"dllm_rl": dllm_rl.__version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "playwright", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    import torch

    return {**found, "instructions": torch.backends.cpu.get_cpu_capability()}
