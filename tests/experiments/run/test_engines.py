"""A stock decoder whose rollouts an engine writes, by `dllm-rl train`; and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from experiments.cli.grid import train_cell
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset
from experiments.design.units import training_digest
from tests.experiments.run.test_own_checkpoint import SMALL
from tests.samplers.engines.decoder import write_qwen3

ENGINE = "policies.autoregressive.sampler={name: ar, options: {engine: {name: transformers}}}"
OURS = "policies.autoregressive.checkpoint=builtin:autoregressive"


def level(path: str, *, facts: str = "canvas_length: 8, max_prompt: 400") -> list[str]:
    return [
        "policies.autoregressive.checkpoint=" + path,
        f"policies.autoregressive.facts={{family: autoregressive, {facts}}}",
        "policies.autoregressive.dtype=float32",
    ]


def test_a_cell_is_trained_on_an_engines_rollouts(tmp_path: Path):
    path = write_qwen3(tmp_path / "checkpoint")
    words = ["toy_sort", "autoregressive", "grpo", *level(path), ENGINE, "train.learning_rate=0.01", *SMALL]
    words.append("policies.autoregressive.evaluation_sampler=ar")
    # With a penalty even groups of equal rewards have a gradient.
    words += ["train.importance_sampling_cap=2.0", "objectives.grpo.options.beta=0.04"]
    assert train_cell(words, preset_name="toy_sort", seed=0, out=tmp_path / "run") == 0
    (seed,) = tmp_path.glob("run/cells/*/seed0")
    (row,) = read_rows(seed / "metrics.jsonl")
    assert 0 < row["sampling_logp_difference/mean"] < 1e-5
    assert row["importance_sampling_ratio/max"] == pytest.approx(1.0, abs=1e-4)
    assert row["nfe"] <= 8 and (tmp_path / "run" / "results.parquet").is_file()


def cell(*settings: str):
    chosen = ["policies=[autoregressive]", "objectives=[grpo]"]
    return build_cells(load_preset("toy_sort", [*chosen, *settings]))[0]


def test_results_without_an_engine_are_keyed_as_they_were(tmp_path: Path):
    path = write_qwen3(tmp_path)

    def digest(*settings: str) -> str:
        return training_digest(cell(*level(path), *settings), checkpoint="c", tasks="t")

    usual = digest()
    assert digest("train.importance_sampling_cap=null") == usual
    other = [digest(ENGINE), digest(ENGINE, "train.importance_sampling_cap=2.0")]
    other.append(digest(ENGINE.replace("transformers", "vllm")))
    assert len({usual, *other}) == 4


@pytest.mark.parametrize(
    ("facts", "settings", "message"),
    [
        ("", (OURS,), "sampler has the engine 'transformers', and 'builtin:autoregressive' is the built-in model"),
        ("canvas_length: 8, end_ids: [1, 7]", (), r"the policy has the ends \[1, 7\], which count as one"),
        ("canvas_length: 8", ("policies.autoregressive.shards=2",), "shards=2 divides the weights"),
        ("canvas_length: 8", ("decoding.grammar=always",), "an engine does not know the grammar"),
    ],
)
def test_an_engine_that_cannot_write_for_a_policy_is_refused(tmp_path, facts, settings, message):
    given = level(write_qwen3(tmp_path), facts=facts) if facts else ["policies.autoregressive.facts={}"]
    with pytest.raises(ConfigError, match=message):
        cell(*given, ENGINE, *settings)


def test_an_engine_of_the_evaluation_alone_is_checked_too(tmp_path):
    evaluation = ENGINE.replace("sampler", "evaluation_sampler")
    with pytest.raises(ConfigError, match="evaluation_sampler has the engine 'transformers', and 'builtin"):
        cell(OURS, "policies.autoregressive.facts={}", evaluation)
    with pytest.raises(ConfigError, match="importance_sampling_cap=2 was given; it corrects draws of an engine"):
        cell(*level(write_qwen3(tmp_path)), evaluation, "train.importance_sampling_cap=2.0")


def test_an_engine_whose_package_is_missing_is_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr("samplers.engines.vllm_engine.find_spec", lambda name: None)
    monkeypatch.setattr("experiments.cli.grid.checked_tasks", None)
    words = ["toy_sort", "autoregressive", "grpo", *level(write_qwen3(tmp_path / "checkpoint")), *SMALL]
    words.append(ENGINE.replace("transformers", "vllm"))
    with pytest.raises(ConfigError, match=r"policy 'autoregressive': engine 'vllm' needs .*'dllm-rl\[vllm\]'"):
        train_cell(words, preset_name="toy_sort", seed=0, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
