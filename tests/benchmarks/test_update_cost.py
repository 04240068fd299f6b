"""What an update holds in memory is bounded by the micro-batch, not by the number of views; the page comes in parts."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import update_cost
from benchmarks.memory import forget_peak, resident
from benchmarks.update_cost import make_rollouts, measure, names_of, page, random_policy, trainer_of

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def test_a_pair_of_views_holds_little_more_than_one_view_and_so_do_many() -> None:
    policy = random_policy(SIZES, num_letters=40, canvas=12)
    rollouts = make_rollouts(policy, rows=8, groups=2, steps=6)

    def held(name: str, micro_batch_rows: int, **options: object) -> int:
        return measure(trainer_of(policy, name, options, micro_batch_rows=micro_batch_rows), rollouts)[1]

    # Part of the prompt is hidden, so that no two rows are equal: equal ones are scored once.
    one_view = held("grpo", 8, beta=0.0, prompt_mask_share=0.3)
    assert 0 < held("grpo", 8, beta=0.0) < one_view
    assert held("espo", 8, beta=0.0, num_draws=1) <= 1.3 * one_view
    assert held("bgpo", 8) <= 1.3 * one_view
    assert held("stable_drl", 8) <= 1.3 * one_view
    assert held("espo", 1000, beta=0.0, num_draws=1) > 1.7 * one_view


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_of_resident_memory_sees_what_is_gone_again() -> None:
    forget_peak()
    before = resident("VmRSS")
    block = torch.ones(64 * 2**20 // 4)
    del block
    assert resident("VmHWM") - before > 60 * 2**20
    forget_peak()
    assert resident("VmHWM") - resident("VmRSS") < 16 * 2**20


def test_each_figure_is_measured_once_and_the_page_shows_what_there_is(tmp_path, monkeypatch) -> None:
    asked = []

    def pretend(part: str, name: str) -> dict[str, float]:
        asked.append((part, name))
        factor = 2 if name == "espo" else 1
        core = 0.3 if name == "espo" else 1.0
        return {"parameters": 1e8, "seconds": 0.8 * factor, "core": core, "held": 4e8 * factor, "peak": 1e9}

    monkeypatch.setattr(update_cost, "measure_apart", pretend)
    places = {"store": tmp_path / "kept.json", "out": tmp_path / "page.md"}
    update_cost.run(["large"], ["grpo"], is_again=False, **places)
    assert "| grpo | 1.00 | 100 | 400 | 1.00 | 1000 | 1.00 |" in places["out"].read_text()
    update_cost.run(["large"], [], is_again=False, **places)
    update_cost.run(["large"], [], is_again=False, **places)
    assert asked == [("large", name) for name in names_of("large")]
    assert names_of("large") == ["grpo", "espo", "grpo, head in tiles", "espo, head in tiles"]
    text = places["out"].read_text()
    assert "| espo | 2.00 * | 200 * | 800 | 2.00 | 1000 | 1.00 |" in text, "a busy machine's times are marked"
    update_cost.run(["large"], ["espo"], is_again=True, **places)
    assert asked[4:] == [("large", "espo")]


def test_a_page_of_nothing_is_its_heading_and_every_method_has_its_line() -> None:
    assert page({}).startswith("# What an update costs")
    assert names_of("built_in")[0] == "grpo" and len(names_of("built_in")) >= 20
