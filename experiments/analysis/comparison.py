"""Two runs, cell by cell: the second's success less the first's, paired by seed, task and sample.

The test is that of the verdicts (docs/statistics.md). Cells of equal names share their evaluation's noise, so a pair
differs only in what was changed between the runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from experiments.analysis.pairing import Pairs, pair_by_seed, split_by
from experiments.analysis.variance import MeanTest, holm, mean_test
from experiments.analysis.verdicts import FULL_NUM_SEEDS, MOST_POINTS

Call = Literal["higher", "lower", "equivalent", "inconclusive", "single_seed", "unpaired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How a cell of the second run differs from the first's. Numbers are percentage points of success.

    Attributes:
        first, second: Success of each in the rollouts that were paired; None where there are none.
        test: The paired difference; None where no seed and task is shared.
        p_adjusted: Holm's over the cells that were compared.
        is_provisional: Told from two to four seeds.
    """

    cell: str
    call: Call
    first: float | None
    second: float | None
    test: MeanTest | None
    p_adjusted: float | None
    num_seeds: int
    num_tasks: int
    is_provisional: bool


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
    pairs = {name: pair_by_seed(after, before) for name, (before, after) in sides.items()}
    tests = {
        name: mean_test(100 * found.table, alpha=alpha, reach=None if _is_same(*sides[name]) else MOST_POINTS)
        for name, found in pairs.items()
        if found.table.size
    }
    adjusted = dict(zip(tests, holm([test.p_value for test in tests.values()]), strict=True))

    def difference(name: str, found: Pairs) -> Difference:
        test, p_adjusted = tests.get(name), adjusted.get(name)
        first = None if test is None else 100 * float(found.baseline.mean())
        return Difference(
            cell=name,
            call=_call(test, p_adjusted, len(found.seeds), margin=margin, alpha=alpha),
            first=first,
            second=None if test is None or first is None else first + test.mean,
            test=test,
            p_adjusted=p_adjusted,
            num_seeds=len(found.seeds),
            num_tasks=len(found.tasks),
            is_provisional=test is not None and 1 < len(found.seeds) < FULL_NUM_SEEDS,
        )

    return [difference(name, found) for name, found in pairs.items()]


def _is_same(first: pa.Table, second: pa.Table) -> bool:
    """Whether all rollouts are the same, so that there is no difference, and not merely none to be seen."""
    return first.select(["seed", "task_id", "sample", "plan"]).equals(
        second.select(["seed", "task_id", "sample", "plan"])
    )


def _call(test: MeanTest | None, p_adjusted: float | None, num_seeds: int, *, margin: float, alpha: float) -> Call:
    if test is None or p_adjusted is None:
        return "unpaired"
    if num_seeds == 1:
        return "single_seed"
    if p_adjusted < alpha and (test.low > 0 or test.high < 0):
        return "higher" if test.mean > 0 else "lower"
    return "equivalent" if -margin < test.low and test.high < margin else "inconclusive"
