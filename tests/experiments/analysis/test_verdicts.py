"""Verdicts of whole grids: each kind, their precedence, lost rollouts, controls, and error rates on null grids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from experiments.analysis.pairing import pair, summarise
from experiments.analysis.verdicts import CellInfo, CellVerdict, judge_grid
from tests.experiments.synthetic import evaluation_rows, labels_of, result_table

SEEDS = (0, 1, 2, 3, 4)
CELL = CellInfo(id="masked-grpo", policy="masked", objective="grpo", seeds=SEEDS)


def warm(rates, *, num_samples=2, draw, lost=0.0):
    rows = evaluation_rows(rates=rates, effect=0, num_samples=num_samples, draw=draw, lost=lost)
    return rows, labels_of("warmstart:masked", "masked", "", "", -1)


def grid(effects: dict[str, float], *, seeds=SEEDS, num_tasks=40, num_samples=2, seed=0, lost=0.0, roles=None):
    """Results and cell infos of a grid with one policy; lost: share of the cells' rollouts lost to the environment."""
    draw = np.random.default_rng(seed)
    rates = draw.beta(1.5, 1.5, num_tasks)
    parts = [warm(rates, num_samples=num_samples, draw=draw)]
    infos = []
    for name, effect in effects.items():
        role = (roles or {}).get(name, "cell")
        infos.append(CellInfo(id=name, policy="masked", objective=name, role=role, seeds=seeds))
        for k in seeds:
            rows = evaluation_rows(rates=rates, effect=effect, num_samples=num_samples, draw=draw, lost=lost)
            parts.append((rows, labels_of(name, "masked", name, role, k)))
    return result_table(parts), infos


def one(table, info, **options):
    return judge_grid(table, [info], digest="d", **options)[0]


def test_planted_effects_are_named():
    table, infos = grid({"up": 25, "down": -25, "none": 0}, num_tasks=80, num_samples=4)
    verdicts = {item.id: item for item in judge_grid(table, infos)}
    assert verdicts["up"].verdict == "improved"
    assert verdicts["down"].verdict == "regressed"
    assert verdicts["none"].verdict in ("inconclusive", "equivalent")
    comparison = verdicts["up"].comparison
    assert comparison is not None
    assert comparison.test.low > 0 < comparison.bootstrap_low
    assert verdicts["none"].detectable is not None


def test_a_wide_margin_makes_equivalent():
    table, infos = grid({"none": 0}, num_tasks=80, num_samples=4)
    assert one(table, infos[0], margin=20.0).verdict == "equivalent"


def test_nothing_changed_at_all_is_equivalent():
    draw = np.random.default_rng(0)
    rows, labels = warm(draw.beta(1.5, 1.5, 20), draw=draw)
    parts = [(rows, labels)] + [(rows, labels_of(CELL.id, "masked", "grpo", "null", k)) for k in SEEDS]
    verdict = one(result_table(parts), replace(CELL, role="null"))
    assert verdict.verdict == "equivalent"
    assert verdict.comparison is not None
    assert verdict.comparison.test.mean == 0


def same_everywhere(num_tasks: int, *, effect: float, seeds=SEEDS, role="cell"):
    """A cell that solves no task before, and afterwards none or all of them."""
    parts = []
    for seed in (-1, *seeds):
        gain = effect if seed >= 0 else 0.0
        rows = evaluation_rows(
            rates=np.zeros(num_tasks), effect=gain, num_samples=2, draw=np.random.default_rng(seed + 1)
        )
        cell = CELL.id if seed >= 0 else "warmstart:masked"
        parts.append((rows, labels_of(cell, "masked", "grpo", role, seed)))
    return one(result_table(parts), replace(CELL, seeds=seeds, role=role))


def test_a_handful_of_equal_values_is_no_certainty():
    up = same_everywhere(3, effect=100, seeds=(0, 1))
    assert (up.verdict, up.p_adjusted) == ("inconclusive", 0.25)
    assert "exact over 3 tasks without spread" in up.reason
    assert same_everywhere(3, effect=0).verdict == "inconclusive"
    assert same_everywhere(124, effect=100).verdict == "improved"
    floored = same_everywhere(124, effect=0)
    assert floored.verdict == "equivalent" and "-2.9 to +2.9" in floored.reason
    exact = same_everywhere(3, effect=0, role="null")
    assert exact.verdict == "equivalent" and "+0.0 to +0.0" in exact.reason


def test_a_single_task_says_that_it_speaks_for_no_other():
    table, infos = grid({"up": 0}, num_tasks=1)
    assert "over seeds only: one task says nothing about others" in one(table, infos[0]).reason
    table, infos = grid({"up": 0}, num_tasks=2)
    assert "over seeds only" not in one(table, infos[0]).reason


def test_one_seed_never_improves():
    table, infos = grid({"up": 60}, seeds=(0,), num_tasks=80)
    verdict = one(table, infos[0])
    assert verdict.verdict == "single_seed"
    assert "smallest effect" in verdict.reason
    assert not verdict.is_provisional


def test_under_five_seeds_is_provisional():
    table, infos = grid({"up": 40}, seeds=(0, 1, 2), num_tasks=80)
    assert one(table, infos[0]).is_provisional
    table, infos = grid({"up": 40}, num_tasks=80)
    assert not one(table, infos[0]).is_provisional


def test_half_the_seeds_collapsed_stands_over_the_mean():
    table, infos = grid({"up": 40}, seeds=(0, 1, 2, 3))
    assert one(table, replace(infos[0], num_collapsed=2)).verdict == "collapsed"
    assert one(table, replace(infos[0], num_collapsed=1)).verdict == "improved"
    single, infos = grid({"up": 40}, seeds=(0,))
    assert one(single, replace(infos[0], num_collapsed=1)).verdict == "collapsed"


def test_a_missing_seed_or_lost_rollouts_fail_before_all_else():
    table, infos = grid({"up": 40}, seeds=(0, 1, 2))
    verdict = one(table, replace(infos[0], seeds=SEEDS, num_collapsed=3))
    assert verdict.verdict == "failed"
    assert verdict.missing_seeds == (3, 4)
    assert "3, 4" in verdict.reason
    table, infos = grid({"up": 40}, lost=0.08)
    verdict = one(table, infos[0])
    assert verdict.verdict == "failed"
    assert "of the rollouts lost (limit" in verdict.reason


def test_what_is_missing_and_has_not_failed_is_owed():
    table, infos = grid({"up": 40}, seeds=(0, 1, 2))
    owed = one(table, replace(infos[0], seeds=SEEDS, owed_seeds=SEEDS, num_collapsed=3))
    assert (owed.verdict, owed.missing_seeds, owed.p_adjusted, owed.is_provisional) == ("owed", (3, 4), None, False)
    mixed = one(table, replace(infos[0], seeds=SEEDS, owed_seeds=(0, 1, 2, 3)))
    assert (mixed.verdict, mixed.reason) == ("failed", "seed 4 failed; still owed: 3")
    assert one(table, replace(CELL, owed_seeds=CELL.seeds)).reason == "no seed has a result yet"


def test_what_is_significant_in_a_part_of_a_grid_stays_so_in_the_whole():
    """Adjusted p can only fall as owed cells get their results, however small the p of what was there of them."""
    effects = {"a": 9, "b": 8, "c": 40, "d": 0}
    table, infos = grid(effects)
    part = table.filter(pc.invert(pc.and_(pc.is_in(table["cell"], pa.array(["c", "d"])), pc.equal(table["seed"], 4))))
    whole = {verdict.id: verdict for verdict in judge_grid(table, infos)}
    for failed in (False, True):
        open_infos = [info if failed else replace(info, owed_seeds=info.seeds) for info in infos]
        found = {verdict.id: verdict for verdict in judge_grid(part, open_infos)}
        assert {found[name].verdict for name in "cd"} == {"failed" if failed else "owed"}
        raw = {name: _p_values(found[name]) for name in "ab"}
        assert {name: p[0] for name, p in raw.items()} == {name: _p_values(whole[name])[0] for name in "ab"}
        assert all(raw[name][1] >= _p_values(whole[name])[1] for name in "ab")
        smallest = min("ab", key=lambda name: raw[name][0])
        assert raw[smallest][1] == pytest.approx(min(1, 4 * raw[smallest][0]))
        assert _p_values(whole[smallest])[1] < raw[smallest][1]


def _p_values(verdict: CellVerdict) -> tuple[float, float]:
    """Raw and adjusted."""
    assert verdict.comparison is not None and verdict.p_adjusted is not None
    return verdict.comparison.test.p_value, verdict.p_adjusted


def test_a_cell_without_rows_is_failed_not_an_error():
    table, _ = grid({"up": 0})
    verdict = one(table, CELL)
    assert verdict.verdict == "failed"
    assert verdict.comparison is None
    assert verdict.after.success is None


def test_lost_rollouts_are_dropped_in_pairs_and_never_count_as_zero():
    draw = np.random.default_rng(0)
    base = evaluation_rows(rates=np.full(10, 0.5), effect=0, num_samples=4, draw=draw)
    cell = [dict(row, success=True) for row in base]
    for row in cell:
        if row["sample"] == 0:
            row |= {"success": False, "fault": "judge" if row["mode"] == "sampled" else "environment"}
    table = result_table([(base, labels_of("w", "m", "", "", -1)), (cell, labels_of("c", "m", "g", "cell", 0))])
    modes = [mode == "sampled" for mode in table.column("mode").to_pylist()]
    sampled = table.filter(modes)
    names = sampled.column("cell").to_pylist()
    after, before = sampled.filter([n == "c" for n in names]), sampled.filter([n == "w" for n in names])
    pairs = pair(after, before)
    kept = [row for row in base if row["mode"] == "sampled" and row["sample"] > 0]
    assert pairs.num_lost == 10
    assert pairs.num_pairs == 30
    assert pairs.table.mean() == pytest.approx(1 - np.mean([row["success"] for row in kept]))
    assert summarise(after).success == 1.0
    assert (summarise(after).lost, summarise(after).unjudged) == (10, 10)


def test_a_task_lost_for_one_seed_is_dropped_for_all():
    draw = np.random.default_rng(0)
    base = evaluation_rows(rates=np.full(4, 0.5), effect=0, num_samples=1, draw=draw)
    broken = [dict(row, fault="environment") if row["task_id"].endswith("2") else row for row in base]
    parts = [(base, labels_of("c", "m", "g", "cell", 0)), (broken, labels_of("c", "m", "g", "cell", 1))]
    pairs = pair(result_table(parts), result_table([(base, labels_of("w", "m", "", "", -1))]))
    assert pairs.table.shape == (2, 3)
    assert pairs.num_dropped_tasks == 1


def test_controls_are_judged_but_are_no_members_of_holms_family():
    table, infos = grid({"up": 10, "none": 0, "control": 30}, roles={"control": "null"}, num_tasks=60)
    together = {item.id: item for item in judge_grid(table, infos)}
    alone = {item.id: item for item in judge_grid(table, infos[:2])}
    assert together["up"].p_adjusted == alone["up"].p_adjusted
    control = together["control"]
    assert control.comparison is not None
    assert control.p_adjusted == control.comparison.test.p_value


def test_the_digest_alone_decides_the_bootstrap():
    table, infos = grid({"up": 10})
    first, again, other = (judge_grid(table, infos, digest=name)[0].comparison for name in ("a", "a", "b"))
    assert first == again
    assert first is not None
    assert other is not None
    assert first.test == other.test
    assert (first.bootstrap_low, first.bootstrap_high) != (other.bootstrap_low, other.bootstrap_high)


def test_only_the_asked_split_is_judged(tmp_path):
    import pyarrow.parquet as pq

    table, infos = grid({"up": 25}, num_tasks=60)
    pq.write_table(table, tmp_path / "results.parquet")
    assert judge_grid(tmp_path / "results.parquet", infos, split="val")[0].verdict == "improved"
    assert judge_grid(tmp_path / "results.parquet", infos, split="test")[0].verdict == "failed"
