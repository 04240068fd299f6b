"""Presets are validated once, at the border, with messages that say what to do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dllm_rl.errors import ConfigError
from experiments.design.config import Evaluation
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset, preset_names
from tests.experiments.grids import preset


def test_every_preset_loads_and_says_what_it_is() -> None:
    assert {"quick", "ci", "grid16", "positive_control"} <= set(preset_names())
    for name in preset_names():
        assert load_preset(name).description


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.steps=2", "trian: no such key. Did you mean 'train'"),
        ("evaluation.splt=val", "Did you mean 'split'"),
        ("policies.masked.sampler.optons={}", "Did you mean 'options'"),
        ("policies=[maskd]", "Did you mean 'masked'"),
        ("evaluation.num_samples=0", "greater than or equal to 1 (given: 0)"),
        ("evaluation.num_samples='2'", "should be a valid integer (given: '2')"),
        ("evaluation.temperature=true", "should be a valid number (given: True)"),
        ("seeds=[true]", "should be a valid integer (given: True)"),
        ("seeds=[1,1]", "a repeated one adds no evidence"),
        ("train", "expected key=value"),
    ],
)
def test_a_wrong_override_is_refused_with_what_to_do(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_preset("quick", [override])
    assert message in str(error.value)


def test_the_block_preset_is_block_under_the_four_objectives() -> None:
    cells = build_cells(load_preset("block"))
    assert {cell.family for cell in cells} == {"block"}
    assert [cell.objective_level for cell in cells if cell.role == "cell"] == ["grpo", "cj_grpo", "gspo", "espo"]
    assert [cell.train["learning_rate"] for cell in cells if cell.role == "null"] == [0.0]


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'quick'"):
        load_preset("quik")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stps=3", "Did you mean 'steps'"),
        ("train.steps=true", "should be a valid integer"),
        ("train.steps='3'", "should be a valid integer"),
        ("train.max_grad_norm='0.1'", "should be a valid number"),
        ("train.seed=3", r"Write seeds=\[3\]"),
        ("objectives.grpo.options.clip_lo=0.1", "Did you mean 'clip_low'"),
        ("objectives.grpo.name=grop", "Did you mean 'grpo'"),
        ("policies.masked.sampler.name=low_confidense", "Did you mean 'low_confidence'"),
        ("policies.masked.sampler.options.temperature=0.5", "set train.temperature"),
    ],
)
def test_settings_of_components_are_refused_when_cells_are_built(tmp_path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_cells(preset(tmp_path, override))


@pytest.mark.parametrize("text", ["1e-3", "1.0e-3", ".001", "1E-3"])
def test_a_number_is_a_number_however_it_is_written(tmp_path, text: str) -> None:
    (norm,) = {cell.train["max_grad_norm"] for cell in build_cells(preset(tmp_path, f"train.max_grad_norm={text}"))}
    assert norm == 0.001


def test_overrides_reach_the_cells(tmp_path) -> None:
    cells = build_cells(preset(tmp_path, "train.steps=7", "objectives.grpo.options.clip_low=0.1"))
    assert {cell.train["steps"] for cell in cells} == {7}
    assert {cell.objective.options["clip_low"] for cell in cells if cell.objective.name == "grpo"} == {0.1}


def test_a_preset_of_ones_own_builds_on_another(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: quick\ndescription: mine\ntrain: {steps: 9}\n")
    mine, quick = load_preset(str(path)), load_preset("quick")
    assert mine.name == "mine"
    assert mine.train == {**quick.train, "steps": 9}
    assert mine.policies == quick.policies


def test_an_option_of_a_component_keeps_its_name() -> None:
    """Where the preset leaves the component at its default, names it alone, or writes it out."""
    quick = load_preset("quick", ["environment.options.isolation=page", "reward.options.submission=0.0"])
    assert (quick.environment.name, quick.environment.options["isolation"]) == ("forms", "page")
    assert quick.reward.name == "outcome"
    toy = load_preset("toy_copy", ["reward.options.submission=0.0"])
    assert (toy.reward.name, toy.reward.options["submission"]) == ("shaped", 0.0)
    toy = load_preset("toy_copy", ["environment.name=forms", "environment.options.isolation=arena"])
    assert (toy.environment.name, toy.environment.options) == ("forms", {"isolation": "arena"})


def test_quick_takes_the_short_variant() -> None:
    assert load_preset("collapse_lab", ["quick=true", "train.steps=3"]).name == "collapse_lab_quick"
    assert load_preset("study16", ["quick=true"]) == load_preset("study16_quick")
    with pytest.raises(ConfigError, match=r"'grid16' has no quick variant; collapse_lab, .*study16 have one"):
        load_preset("grid16", ["quick=true"])


@pytest.mark.parametrize(
    ("isolations", "executors", "expected"),
    [
        (("context", "page"), ("trusted",), {"isolation": "context", "executor": "trusted"}),
        (("container",), ("trusted",), {"isolation": None, "executor": "trusted"}),
        ((), (), {"isolation": None, "executor": None}),
    ],
)
def test_an_environment_is_asked_for_modes_that_it_has(isolations, executors, expected) -> None:
    environment = SimpleNamespace(isolations=isolations, executors=executors)
    assert Evaluation().modes(environment) == expected
