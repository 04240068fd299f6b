"""Averages over cells of a grid: what training did to each policy, and how each objective compares with the others.

They are secondary: verdicts are about cells. Averaging first and testing then uses that all cells of a grid share
their seeds, tasks and noise, so that a difference of averages is paired like a cell's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from experiments.analysis.pairing import Pairs, pair, split_by
from experiments.analysis.variance import MeanTest, holm, mean_test
from experiments.analysis.verdicts import MOST_POINTS, CellInfo
from experiments.run.results import UnitKey

Kind = Literal["policy", "objective"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """An average over cells, in percentage points of sampled success.

    Attributes:
        kind: `policy`: its cells against its warm start. `objective`: its cells against those of all other objectives.
        name: The policy or the objective.
        p_adjusted: Holm's, over the contrasts of this kind.
        num_cells: Cells of that policy or objective.
    """

    kind: Kind
    name: str
    test: MeanTest
    p_adjusted: float
    num_cells: int
    num_seeds: int
    num_tasks: int


def contrasts_of(results: pa.Table, cells: Sequence[CellInfo], *, alpha: float = 0.05) -> list[Contrast]:
    """Compare policies and objectives, over the seeds and tasks that all cells have.

    Empty while a cell has no result, and where the grid is not complete (a policy lacks an objective): averages over
    different cells would compare different things.

    Args:
        results: Evaluated rollouts of a run.
        cells: The cells of the grid, without its controls.
        alpha: Of the intervals.
    """
    policies = list(dict.fromkeys(cell.policy for cell in cells))
    objectives = list(dict.fromkeys(cell.objective for cell in cells))
    if len(policies) * len(objectives) != len(cells):
        return []
    by_cell, none = split_by(split_by(results, "mode").get("sampled", results.slice(0, 0)), "cell"), results.slice(0, 0)
    pairs = {
        (cell.policy, cell.objective): pair(
            by_cell.get(cell.id, none), by_cell.get(UnitKey(policy=cell.policy).label, none)
        )
        for cell in cells
    }
    seeds, tasks = _shared(list(pairs.values()))
    if not seeds or not tasks:
        return []
    cube = np.array(
        [[_aligned(pairs[policy, objective], seeds, tasks) for objective in objectives] for policy in policies]
    )
    tables: list[tuple[Kind, str, Float[np.ndarray, "s t"]]] = [
        ("policy", name, cube[at].mean(axis=0)) for at, name in enumerate(policies)
    ]
    if len(objectives) > 1:
        for at, name in enumerate(objectives):
            others = np.delete(cube, at, axis=1).mean(axis=1)
            tables.append(("objective", name, (cube[:, at] - others).mean(axis=0)))
    found = [
        Contrast(
            kind=kind,
            name=name,
            test=mean_test(100 * table, alpha=alpha, reach=MOST_POINTS if kind == "policy" else 2 * MOST_POINTS),
            p_adjusted=1.0,
            num_cells=len(objectives) if kind == "policy" else len(policies),
            num_seeds=len(seeds),
            num_tasks=len(tasks),
        )
        for kind, name, table in tables
    ]
    return [
        item for kind in ("policy", "objective") for item in _adjusted([each for each in found if each.kind == kind])
    ]


def _adjusted(contrasts: list[Contrast]) -> list[Contrast]:
    adjusted = holm([item.test.p_value for item in contrasts])
    return [replace(item, p_adjusted=value) for item, value in zip(contrasts, adjusted, strict=True)]


def _shared(pairs: Sequence[Pairs]) -> tuple[list[int], list[str]]:
    """Seeds and tasks that every cell has, sorted."""
    seeds = set.intersection(*(set(item.seeds) for item in pairs)) if pairs else set()
    tasks = set.intersection(*(set(item.tasks) for item in pairs)) if pairs else set()
    return sorted(seeds), sorted(tasks)


def _aligned(pairs: Pairs, seeds: list[int], tasks: list[str]) -> Float[np.ndarray, "s t"]:
    rows, columns = [pairs.seeds.index(seed) for seed in seeds], [pairs.tasks.index(task) for task in tasks]
    return pairs.table[np.ix_(rows, columns)]
