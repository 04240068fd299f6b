"""Draws of an engine: how far its log-probabilities are off is told at every step, and can be corrected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from dllm_rl.records.types import Prompts, Views
from dllm_rl.training import update
from dllm_rl.training.correction import correction_metrics, importance_weights
from dllm_rl.training.engine import RolloutEngine
from dllm_rl.training.trainer import Trainer
from dllm_rl.training.turns import weigh
from samplers import AutoregressiveSampler, Request, Written
from tests.dllm_rl.training.test_trainer import flat, make, same, weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Coarse:
    """Draws at a temperature of its own, which is how far its numbers are off."""

    heat: float
    name: str = "coarse"

    def require(self) -> None: ...

    def write(self, policy: Any, request: Request) -> list[Written]:
        prompts = Prompts.left_padded(
            [list(ids) for ids in request.prompts],
            row_ids=[seed % 2**31 for seed in request.seeds],
            pad_id=policy.canvas.pad_id,
        )
        out = AutoregressiveSampler(temperature=self.heat).generate(policy, prompts, seed=0)
        lengths = out.mask.sum(dim=1).tolist()
        return [
            Written(tokens=tuple(ids[:n].tolist()), log_probs=tuple(values[:n].tolist()))
            for ids, values, n in zip(out.ids, out.trajectory.log_probs, lengths, strict=True)
        ]


def trained(
    tmp_path: Path, *, heat: float = 1.3, objective: str = "grpo", cap: float | None = None, **settings: Any
) -> Trainer:
    usual = make("autoregressive", objective, tmp_path, steps=1, **settings)
    sampler = AutoregressiveSampler(engine=Coarse(heat=heat))  # type: ignore[arg-type]
    return Trainer(
        engine=replace(usual.engine, sampler=sampler),
        objective=usual.objective,
        tasks=usual.tasks,
        config=usual.config.model_copy(update={"importance_sampling_cap": cap}),
        run_dir=tmp_path,
    )


def exact_views(log_probs: torch.Tensor) -> Views:
    ids = torch.zeros(1, *log_probs.shape, dtype=torch.long)
    return Views(tokens=ids, score=torch.ones_like(ids, dtype=torch.bool), weight=torch.ones(ids.shape), is_replay=True)


def record_of(log_probs: torch.Tensor) -> Any:
    return SimpleNamespace(trajectory=SimpleNamespace(log_probs=log_probs))


def test_weighted_draws_of_an_engine_have_the_policys_gradient():
    """Every token of a vocabulary, as often as the engine draws it; of both the policy's gradient is the mean."""
    generator = torch.Generator().manual_seed(0)
    logits, engine = (torch.randn(7, generator=generator, dtype=torch.float64) for _ in range(2))
    advantage = torch.randn(7, generator=generator, dtype=torch.float64)
    engine = engine.log_softmax(dim=-1)

    def gradient(law: torch.Tensor, cap: float | None) -> torch.Tensor:
        theta = logits.clone().requires_grad_()
        # A row for each token, of one column.
        terms = theta.log_softmax(dim=-1)[None, :, None]
        if cap is not None:
            record = record_of(engine[:, None])
            terms = weigh(terms, importance_weights(record, exact_views(engine[:, None]), terms, cap))
        (law.exp() * advantage * terms[0, :, 0]).sum().backward()
        assert theta.grad is not None
        return theta.grad

    policy = logits.log_softmax(dim=-1)
    torch.testing.assert_close(gradient(engine, cap=1e9), gradient(policy, cap=None))
    assert not torch.allclose(gradient(engine, cap=None), gradient(policy, cap=None), atol=0.01)
    assert not torch.allclose(gradient(engine, cap=1.0), gradient(policy, cap=None), atol=0.01)


def test_weights_are_cut_at_the_cap_and_1_where_nothing_is_scored():
    recorded = torch.tensor([[-1.0, -2.0, -3.0]])
    views = exact_views(recorded)
    views = replace(views, score=torch.tensor([[[True, True, False]]]))
    found = importance_weights(record_of(recorded), views, torch.tensor([[[-1.5, -0.5, 0.0]]]), 2.0)
    torch.testing.assert_close(found, torch.tensor([[float(torch.tensor(-0.5).exp()), 2.0, 1.0]]))
    with pytest.raises(ConfigError, match="scores other views than the exact one"):
        importance_weights(record_of(recorded), replace(views, is_replay=False), recorded[None], 2.0)
    told = correction_metrics(views, found)
    assert told["importance_sampling_ratio/max"] == 2.0
    assert told["importance_sampling_ratio/min"] == pytest.approx(0.6065, abs=1e-4)
    assert told["importance_sampling_ratio/mean"] == pytest.approx(1.3033, abs=1e-4)


@pytest.mark.parametrize("objective", ["grpo", "dr_grpo", "gspo", "cispo", "rloo"])
def test_every_step_tells_how_far_the_engine_is_off(tmp_path, objective):
    """And whether it is or not, the policy's own ratio is 1 before the first update."""
    inner = {"inner_steps": 1} if objective == "rloo" else {}
    trained(tmp_path, objective=objective, cap=1.5, **inner).train()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert row["sampling_logp_difference/mean"] > 0.05
    assert row["importance_sampling_ratio/min"] < 0.9 < row["importance_sampling_ratio/mean"]
    assert row["importance_sampling_ratio/max"] == pytest.approx(1.5)
    assert row.get("ratio_dev_u0", 0.0) == 0 and row["nonfinite_gradients"] == 0


def test_a_step_that_updates_nothing_tells_it_too(tmp_path):
    """All rewards are equal. Without an engine nothing is scored there."""
    settings: dict[str, Any] = {"reward": flat, "options": {"beta": 0.0}}
    trained(tmp_path / "engine", **settings).train()
    make("autoregressive", "grpo", tmp_path / "usual", steps=1, **settings).train()
    (row,), (usual,) = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("engine", "usual"))
    assert row["rows_updated"] == usual["rows_updated"] == 0
    assert row["sampling_logp_difference/mean"] > 0.05
    assert "sampling_logp_difference/mean" not in usual


def test_an_exact_engine_is_off_by_rounding_and_nothing_is_corrected_unasked(tmp_path):
    trained(tmp_path, heat=1.0).train()
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert row["sampling_logp_difference/max"] < 1e-4
    assert not [name for name in row if name.startswith("importance_sampling_ratio")]


def test_a_correction_moves_the_policy_otherwise_and_weighs_alike_at_every_inner_step(tmp_path, monkeypatch):
    seen = []

    def spied(*given):
        seen.append(importance_weights(*given))
        return seen[-1]

    monkeypatch.setattr(update, "importance_weights", spied)
    plain, corrected = trained(tmp_path / "plain"), trained(tmp_path / "corrected", cap=2.0)
    plain.train()
    assert not seen
    corrected.train()
    assert not same(weights(plain), weights(corrected))
    # Of each inner step for the loss, and of the first for the metrics.
    first, told, second = seen
    torch.testing.assert_close(first, told)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("family", "objective"), [("masked", "espo"), ("autoregressive", "grpo")])
def test_a_correction_without_an_engine_is_refused(tmp_path, family, objective):
    with pytest.raises(ConfigError, match="importance_sampling_cap=2 was given; it corrects draws of an engine"):
        make(family, objective, tmp_path, importance_sampling_cap=2.0)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        make(family, objective, tmp_path, importance_sampling_cap=0.5)


def test_approximate_draws_of_other_families_are_not_corrected(tmp_path):
    sampler = registry.build("sampler", "threshold", {"cache": "dual", "block_length": 12}, temperature=1.0)
    usual = make("masked", "espo", tmp_path)
    engine: RolloutEngine = replace(usual.engine, sampler=sampler)
    config = usual.config.model_copy(update={"importance_sampling_cap": 2.0})
    with pytest.raises(ConfigError, match="which the sampler 'threshold' does not have here"):
        Trainer(engine=engine, objective=usual.objective, tasks=usual.tasks, config=config, run_dir=tmp_path)
