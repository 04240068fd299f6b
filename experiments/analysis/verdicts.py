"""One verdict a cell, computed from the evaluated rollouts: a cell against its policy's warm start, paired by task.

The rules are those of docs/statistics.md. Effects are in percentage points.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.analysis.pairing import Pairs, Summary, pair, split_by, summarise
from experiments.analysis.variance import (
    MeanTest,
    crossed_bootstrap,
    detectable_effect,
    holm,
    mean_test,
)
from experiments.design.config import Role
from experiments.run.results import MAX_LOST_SHARE, UnitKey, is_lost

Verdict = Literal["improved", "regressed", "equivalent", "inconclusive", "collapsed", "single_seed", "failed", "owed"]
# Verdicts without a judgement: a failed cell never gets one, an owed one later.
UNJUDGED = ("failed", "owed")
FULL_NUM_SEEDS = 5
# A success rate can change by no more.
MOST_POINTS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CellInfo:
    """What was declared about a cell.

    Attributes:
        seeds: Those that it should have.
        num_collapsed: seeds whose training collapsed.
        num_stopped: seeds whose training an alarm ended early.
        owed_seeds: seeds that have not failed: a missing result is still to come.
        is_warm_start_owed: Whether the warm start's evaluation is still to come.
    """

    id: str
    policy: str
    objective: str
    role: Role = "cell"
    seeds: tuple[int, ...] = ()
    num_collapsed: int = 0
    num_stopped: int = 0
    owed_seeds: tuple[int, ...] = ()
    is_warm_start_owed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Paired difference of an outcome, cell minus warm start.

    Attributes:
        test: The decision (two-way variance).
        bootstrap_low: Crossed bootstrap, for the picture.
        bootstrap_high: The same.
        num_lost_pairs: Pairs dropped because a side was lost.
        num_dropped_tasks: Tasks left without a pair for some seed.
    """

    test: MeanTest
    bootstrap_low: float
    bootstrap_high: float
    num_seeds: int
    num_tasks: int
    num_pairs: int
    num_lost_pairs: int
    num_dropped_tasks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CellVerdict:
    """Verdict of a cell with everything it rests on. Effects, intervals and margins are in percentage points.

    Attributes:
        comparison: None where nothing could be paired.
        reward: Secondary, of the mean reward.
        p_adjusted: Holm's over the cells of the grid; for a control its own p. None where the cell failed or is owed.
        detectable: Smallest effect that this cell could have seen at 80 % power; None where no spread was seen.
    """

    id: str
    policy: str
    objective: str
    role: Role
    verdict: Verdict
    reason: str
    is_provisional: bool
    comparison: Comparison | None
    reward: MeanTest | None
    p_adjusted: float | None
    detectable: float | None
    before: Summary
    after: Summary
    before_greedy: Summary
    after_greedy: Summary
    lost_share: float
    missing_seeds: tuple[int, ...] = ()
    seed_effects: dict[int, float] = field(default_factory=dict)


def compare(pairs: Pairs, *, name: str, alpha: float = 0.05, is_exact: bool = False) -> Comparison | None:
    """Compare success, in points; None where no pair is left.

    Args:
        name: Seeds the bootstrap's own generator.
        is_exact: A difference that is the same everywhere is what it is: so many tasks are no sample of others.
    """
    if not pairs.table.size:
        return None
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
    table = 100 * pairs.table
    low, high = crossed_bootstrap(table, generator=np.random.default_rng(seed), alpha=alpha)
    return Comparison(
        test=mean_test(table, alpha=alpha, reach=None if is_exact else MOST_POINTS),
        bootstrap_low=low,
        bootstrap_high=high,
        num_seeds=len(pairs.seeds),
        num_tasks=len(pairs.tasks),
        num_pairs=pairs.num_pairs,
        num_lost_pairs=pairs.num_lost,
        num_dropped_tasks=pairs.num_dropped_tasks,
    )


def _failure(
    cell: CellInfo, missing: Sequence[int], lost_share: float, lost_before: float, comparison: Comparison | None
) -> str | None:
    if owed := [seed for seed in missing if seed in cell.owed_seeds]:
        failed = [seed for seed in missing if seed not in owed]
        return f"seed{'s' * (len(failed) > 1)} {_listed(failed)} failed; still owed: {_listed(owed)}"
    if missing:
        return f"{len(missing)} of {len(cell.seeds)} seeds have no result ({_listed(missing)})"
    if lost_share > MAX_LOST_SHARE:
        return f"{lost_share:.1%} of the rollouts lost (limit {MAX_LOST_SHARE:.0%})"
    if lost_before > MAX_LOST_SHARE:
        return f"{lost_before:.1%} of the warm start's rollouts lost (limit {MAX_LOST_SHARE:.0%})"
    if comparison is None:
        return "no rollout could be paired with the warm start's"
    return None


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _debt(cell: CellInfo, missing: Sequence[int], has_warm_start: bool) -> str | None:
    """What a cell still waits for; None where nothing, or where what it lacks has failed."""
    if not set(missing) <= set(cell.owed_seeds):
        return None
    if missing and len(missing) == len(cell.seeds):
        return "no seed has a result yet"
    if missing:
        num_done = len(cell.seeds) - len(missing)
        return f"{num_done} of {len(cell.seeds)} seeds have a result; still owed: {_listed(missing)}"
    return None if has_warm_start or not cell.is_warm_start_owed else "its warm start has not been evaluated yet"


def _lost_share(rows: pa.Table) -> float:
    return sum(map(is_lost, rows.column("fault").to_pylist())) / max(1, rows.num_rows)


def _prepare(final: pa.Table, warm: pa.Table, cell: CellInfo, *, digest: str, alpha: float) -> CellVerdict:
    """Everything about a cell but the verdict itself, which needs Holm's adjustment over the whole grid.

    Args:
        final, warm: Evaluated rollouts of the cell and of its policy's warm start.
    """
    finals, warms, none = split_by(final, "mode"), split_by(warm, "mode"), final.slice(0, 0)
    after, before = finals.get("sampled", none), warms.get("sampled", none)
    pairs = pair(after, before)
    rewards = pair(after, before, outcome="reward").table
    # Learning rate 0 must give the warm start's rollouts again.
    comparison = compare(pairs, name=f"{digest}/{cell.id}", alpha=alpha, is_exact=cell.role == "null")
    found = set(final.column("seed").to_pylist())
    missing = tuple(seed for seed in cell.seeds if seed not in found)
    lost_share, lost_before = _lost_share(final), _lost_share(warm)
    debt = _debt(cell, missing, bool(warm.num_rows))
    failure = None if debt else _failure(cell, missing, lost_share, lost_before, comparison)
    return CellVerdict(
        id=cell.id,
        policy=cell.policy,
        objective=cell.objective,
        role=cell.role,
        verdict="owed" if debt else "failed" if failure else "inconclusive",
        reason=debt or failure or "",
        is_provisional=False,
        comparison=comparison,
        reward=mean_test(rewards, alpha=alpha) if rewards.size else None,
        p_adjusted=None,
        detectable=None,
        before=summarise(before),
        after=summarise(after),
        before_greedy=summarise(warms.get("greedy", none)),
        after_greedy=summarise(finals.get("greedy", none)),
        lost_share=lost_share,
        missing_seeds=missing,
        seed_effects={
            int(seed): 100 * float(row.mean()) for seed, row in zip(pairs.seeds, pairs.table, strict=True) if row.size
        },
    )


def _decide(draft: CellVerdict, cell: CellInfo, *, alpha: float, margin: float) -> tuple[Verdict, str]:
    """The verdict, by the precedence of the protocol, and the reason in words."""
    if draft.comparison is None or draft.p_adjusted is None:
        return draft.verdict, draft.reason
    test, num_seeds = draft.comparison.test, draft.comparison.num_seeds
    interval = f"{test.mean:+.1f} points, {1 - alpha:.0%} interval {test.low:+.1f} to {test.high:+.1f}"
    seen = "without spread, what it could have seen is unknown"
    if draft.detectable is not None:
        seen = f"the smallest effect this cell could have seen is {draft.detectable:.1f} points"
    elif test.low < test.high:
        interval += f", exact over {draft.comparison.num_tasks} tasks without spread"
    if draft.comparison.num_tasks == 1 < num_seeds:
        interval += " over seeds only: one task says nothing about others"
    if 2 * cell.num_collapsed >= num_seeds and cell.num_collapsed:
        return "collapsed", f"{cell.num_collapsed} of {num_seeds} seeds collapsed in training; {interval}"
    if num_seeds == 1:
        return "single_seed", f"{interval} over tasks only; one seed cannot tell a method from luck; {seen}"
    if draft.p_adjusted < alpha and (test.low > 0 or test.high < 0):
        return ("improved" if test.mean > 0 else "regressed"), f"{interval}, adjusted p {draft.p_adjusted:.2g}"
    if -margin < test.low and test.high < margin:
        return "equivalent", f"{interval} lies inside the margin of {margin:g} points"
    return "inconclusive", f"{interval}; {seen}"


def _adjusted(drafts: Sequence[CellVerdict], family: set[str]) -> dict[str, float]:
    """Holm's adjusted p of the cells of the grid; a control keeps its own.

    A cell that failed or is owed stays in the family, with p = 1, whatever part of it is there: that makes nothing else
    significant. As owed cells get their results adjusted p can only fall, so what is significant now stays so.
    """
    raw = {
        draft.id: draft.comparison.test.p_value if draft.comparison and draft.verdict not in UNJUDGED else 1.0
        for draft in drafts
    }
    members = [name for name in raw if name in family]
    return raw | dict(zip(members, holm([raw[name] for name in members]), strict=True))


def judge_grid(
    results: pa.Table | str | Path,
    cells: Iterable[CellInfo],
    *,
    alpha: float = 0.05,
    margin: float = 5.0,
    digest: str = "",
    split: str | None = None,
) -> list[CellVerdict]:
    """Judge every cell of a grid against its policy's warm start.

    Controls are judged, but do not belong to Holm's family.

    Args:
        results: Rows of results.parquet, or its path.
        margin: Of equivalence, in points.
        digest: The grid's; it seeds the bootstrap.
        split: The split to judge on; None where the table holds only one.
    """
    table = pq.read_table(results) if isinstance(results, str | Path) else results
    table = table.select([name for name in table.column_names if name not in ("plan", "notes")])
    if split is not None:
        table = split_by(table, "split").get(split, table.slice(0, 0))
    cells, by_cell, none = list(cells), split_by(table, "cell"), table.slice(0, 0)
    drafts = [
        _prepare(
            by_cell.get(cell.id, none),
            by_cell.get(UnitKey(policy=cell.policy).label, none),
            cell,
            digest=digest,
            alpha=alpha,
        )
        for cell in cells
    ]
    family = {cell.id for cell in cells if cell.role == "cell"}
    adjusted = _adjusted(drafts, family)
    verdicts = []
    for cell, draft in zip(cells, drafts, strict=True):
        if draft.comparison is not None:
            size = len(family) if cell.role == "cell" else 1
            test = draft.comparison.test
            effect = detectable_effect(test.standard_error, test.degrees, num_comparisons=size, alpha=alpha)
            is_known = math.isfinite(effect) and test.standard_error > 0
            p_adjusted = None if draft.verdict in UNJUDGED else adjusted[cell.id]
            draft = replace(draft, p_adjusted=p_adjusted, detectable=effect if is_known else None)
        verdict, reason = _decide(draft, cell, alpha=alpha, margin=margin)
        if cell.num_stopped and verdict not in UNJUDGED:
            reason += f"; an alarm stopped {cell.num_stopped} of {len(cell.seeds)} seeds early"
        is_provisional = verdict not in UNJUDGED and 1 < len(draft.seed_effects) < FULL_NUM_SEEDS
        verdicts.append(replace(draft, verdict=verdict, reason=reason, is_provisional=is_provisional))
    return verdicts
