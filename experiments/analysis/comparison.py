"""Two runs, cell by cell: the second's success less the first's, paired by seed, task and sample.

The test is that of the verdicts (docs/statistics.md). Cells of equal names share their evaluation's noise, so a pair
differs only in what was changed between the runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from experiments.analysis.pairing import Pairs, pair, split_by, summarise
from experiments.analysis.variance import MeanTest, holm, mean_test

Call = Literal["higher", "lower", "equivalent", "inconclusive", "single_seed", "unpaired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a cell of the second run differs from the first's. Numbers are percentage points of success.

    Attributes:
        first, second: Success of each, all of its rollouts counted; None where there are none.
        test: The paired difference; None where no seed and task is shared.
        p_adjusted: Holm's over the cells that were compared.
    """

    cell: str
    call: Call
    first: float | None
    second: float | None
    test: MeanTest | None
    p_adjusted: float | None
    num_seeds: int
    num_tasks: int


def compare_runs(
    first: pa.Table, second: pa.Table, cells: Iterable[str], *, margin: float = 5.0, alpha: float = 0.05
) -> list[Difference]:
    """Compare cells that both runs have.

    Args:
        first: Rows of results.parquet.
        second: Rows of the run that is compared with it.
        margin: Of equivalence, in points.
    """
    tables = [split_by(split_by(rows, "mode").get("sampled", rows.slice(0, 0)), "cell") for rows in (first, second)]
    names = list(cells)
    sides = {name: tuple(table.get(name, first.slice(0, 0)) for table in tables) for name in names}
    pairs = {name: pair_by_seed(*sides[name]) for name in names}
    tests = {name: mean_test(100 * found.table, alpha=alpha) for name, found in pairs.items() if found.table.size}
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))
    return [
        Difference(
            cell=name,
            call=_call(tests.get(name), adjusted.get(name), len(pairs[name].seeds), margin=margin, alpha=alpha),
            first=_points(sides[name][0]),
            second=_points(sides[name][1]),
            test=tests.get(name),
            p_adjusted=adjusted.get(name),
            num_seeds=len(pairs[name].seeds),
            num_tasks=len(pairs[name].tasks),
        )
        for name in names
    ]


def pair_by_seed(first: pa.Table, second: pa.Table) -> Pairs:
    """Pair rollouts of equal seed, task and sample; only tasks that keep a pair for every shared seed stay."""
    before, after = split_by(first, "seed"), split_by(second, "seed")
    parts = {seed: pair(after[seed], before[seed]) for seed in sorted(before.keys() & after.keys())}
    kept = [set(part.tasks) for part in parts.values()]
    tasks = tuple(sorted(set.intersection(*kept))) if kept else ()
    rows = [[part.table[0, part.tasks.index(task)] for task in tasks] for part in parts.values()]
    return Pairs(
        table=np.array(rows).reshape(len(parts), len(tasks)),
        seeds=tuple(map(int, parts)) if tasks else (),
        tasks=tasks,
        num_pairs=sum(part.num_pairs for part in parts.values()),
        num_lost=sum(part.num_lost for part in parts.values()),
        num_dropped_tasks=len(set().union(*kept)) - len(tasks),
    )


def _call(test: MeanTest | None, p_adjusted: float | None, num_seeds: int, *, margin: float, alpha: float) -> Call:
    if test is None or p_adjusted is None:
        return "unpaired"
    if num_seeds == 1:
        return "single_seed"
    if p_adjusted < alpha and (test.low > 0 or test.high < 0):
        return "higher" if test.mean > 0 else "lower"
    return "equivalent" if -margin < test.low and test.high < margin else "inconclusive"


def _points(rows: pa.Table) -> float | None:
    success = summarise(rows).success
    return None if success is None else 100 * success
