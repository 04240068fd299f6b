"""Averages over cells: exact on planted tables, none where cells are missing."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.analysis.contrasts import contrasts_of
from experiments.analysis.pairing import pair
from experiments.analysis.variance import holm, mean_test
from experiments.analysis.verdicts import CellInfo
from tests.experiments.synthetic import evaluation_rows, labels_of, result_table

SEEDS, NUM_TASKS = (0, 1, 2, 3, 4), 40
EFFECTS = {("ar", "grpo"): 30, ("ar", "espo"): 10, ("masked", "grpo"): 15, ("masked", "espo"): 5}


def grid(effects=EFFECTS, seeds=SEEDS):
    draw = np.random.default_rng(0)
    parts, infos = [], []
    for policy in dict.fromkeys(policy for policy, _ in effects):
        rates = draw.beta(1.5, 1.5, NUM_TASKS)
        rows = evaluation_rows(rates=rates, effect=0, num_samples=2, draw=draw, lost=0.0)
        parts.append((rows, labels_of(f"warmstart:{policy}", policy, "", "", -1)))
        for objective in [objective for other, objective in effects if other == policy]:
            name = f"{policy}-{objective}"
            infos.append(CellInfo(id=name, policy=policy, objective=objective, seeds=seeds))
            for seed in seeds:
                rows = evaluation_rows(
                    rates=rates, effect=effects[policy, objective], num_samples=2, draw=draw, lost=0.0
                )
                parts.append((rows, labels_of(name, policy, objective, "cell", seed)))
    return result_table(parts), infos


def tables(results, infos):
    rows = {info.id: results.filter(np.array(results.column("cell")) == info.id) for info in infos}
    starts = {
        name: results.filter(np.array(results.column("cell")) == f"warmstart:{name}") for name in ("ar", "masked")
    }

    def sampled(table):
        return table.filter(np.array(table.column("mode")) == "sampled")

    return {
        (info.policy, info.objective): 100 * pair(sampled(rows[info.id]), sampled(starts[info.policy])).table
        for info in infos
    }


def test_averages_are_those_of_the_cells_and_tested_like_them():
    results, infos = grid()
    cells = tables(results, infos)
    found = {(item.kind, item.name): item for item in contrasts_of(results, infos)}
    ar = (cells["ar", "grpo"] + cells["ar", "espo"]) / 2
    assert found["policy", "ar"].test == mean_test(ar)
    difference = (cells["ar", "grpo"] + cells["masked", "grpo"] - cells["ar", "espo"] - cells["masked", "espo"]) / 2
    assert found["objective", "grpo"].test == mean_test(difference)
    assert found["objective", "espo"].test.mean == pytest.approx(-found["objective", "grpo"].test.mean)
    assert found["policy", "ar"].test.low > 0
    assert (found["policy", "ar"].num_cells, found["policy", "ar"].num_seeds) == (2, 5)
    assert found["policy", "ar"].num_tasks == NUM_TASKS


def test_p_is_corrected_within_each_kind():
    found = contrasts_of(*grid())
    for kind in ("policy", "objective"):
        group = [item for item in found if item.kind == kind]
        assert [item.p_adjusted for item in group] == holm([item.test.p_value for item in group])


def test_seeds_that_a_cell_owes_are_left_out_for_all():
    results, infos = grid()
    is_owed = (np.array(results.column("cell")) == "masked-espo") & (np.array(results.column("seed")) == 4)
    assert {item.num_seeds for item in contrasts_of(results.filter(~is_owed), infos)} == {4}
    none = results.filter(np.array(results.column("cell")) != "masked-espo")
    assert contrasts_of(none, infos) == []


def test_a_grid_that_is_not_crossed_is_not_averaged():
    results, infos = grid({**EFFECTS, ("ar", "gspo"): 0})
    assert contrasts_of(results, infos) == []
    one = [info for info in infos if info.objective == "grpo"]
    assert [item.kind for item in contrasts_of(results, one)] == ["policy", "policy"]
