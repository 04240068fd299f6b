"""The spread of the likelihood over masks: what it is, where it is left out, and that it decides nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.files import read_rows
from dllm_rl.training import update
from dllm_rl.training.metrics import inner_metrics, likelihood_sd
from dllm_rl.training.update import generator
from tests.dllm_rl.training.test_trainer import make
from tests.examples import example

FAMILIES = ("masked", "block", "slot", "flow")


def views_and_scores(family, draw="elbo", **options):
    case = example(family)
    views = getattr(case.policy.process, draw)(case.rollouts, generator(3, "masks"), **options)
    return case, views, case.policy.view_log_probs(case.rollouts, views).detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_spread_of_what_each_view_alone_would_estimate(family) -> None:
    _, views, scores = views_and_scores(family, num_draws=3)
    alone = [(6 * views.weight[view] * views.score[view] * scores[view]).sum(-1) for view in range(6)]
    mean = sum(alone) / 6
    assert torch.allclose(mean, (views.weight * views.score * scores).sum((0, 2)), rtol=1e-4)
    by_row = (sum((value - mean) ** 2 for value in alone) / 5) ** 0.5
    assert likelihood_sd(views, scores) == pytest.approx(float(by_row.mean()), rel=1e-4)


def test_views_that_cannot_differ_have_none_and_scaled_ones_the_same() -> None:
    """BGPO's views are each a whole estimate, with a loss weight of 1 / k: the same spread as the ELBO's own."""
    _, views, scores = views_and_scores("masked", num_draws=4, antithetic=False)
    scaled = replace(views, weight=4 * views.weight, loss_weight=torch.full_like(views.weight, 0.25))
    assert likelihood_sd(scaled, scores) == pytest.approx(likelihood_sd(views, scores), rel=1e-5)
    same = views.views(torch.zeros(4, dtype=torch.long))
    assert likelihood_sd(same, scores[[0, 0, 0, 0]]) == 0
    assert likelihood_sd(views, scores) > 0.1


def test_the_cross_entropy_does_not_depend_on_how_a_method_scales_its_views() -> None:
    """Those of ESPO, of BGPO (each a whole estimate) and two sets at once, as the negative control has them."""
    case, views, scores = views_and_scores("masked", num_draws=4, antithetic=False)

    def nelbo(some, of_some):
        return inner_metrics(case.rollouts, some, of_some, estimates_elbo=False)["nelbo_per_token"]

    scaled = replace(views, weight=4 * views.weight, loss_weight=torch.full_like(views.weight, 0.25))
    twice = torch.arange(4).repeat(2)
    right = nelbo(views, scores)
    assert nelbo(scaled, scores) == pytest.approx(right, rel=1e-5)
    assert nelbo(views.views(twice), scores[twice]) == pytest.approx(right, rel=1e-5)
    case = example("autoregressive")
    whole = case.policy.process.exact(case.rollouts)
    of_whole = case.policy.view_log_probs(case.rollouts, whole).detach()
    _, of_flow, of_flow_scores = views_and_scores("flow")
    assert "nelbo_per_token" not in inner_metrics(case.rollouts, of_flow, of_flow_scores, estimates_elbo=False)
    by_token = -of_whole[0][case.rollouts.completion_mask].mean()
    assert inner_metrics(case.rollouts, whole, of_whole, estimates_elbo=False)["nelbo_per_token"] == pytest.approx(
        float(by_token), rel=1e-5
    )


def test_it_is_left_out_where_it_is_not_defined() -> None:
    for draw, options, is_elbo, has_it in (
        ("elbo", {"num_draws": 1}, True, True),
        ("elbo", {"num_draws": 1, "antithetic": False}, True, False),
        ("elbo", {"num_draws": 1}, False, False),
        ("quadrature", {"num_nodes": 2}, False, False),
    ):
        case, views, scores = views_and_scores("masked", draw, **options)
        assert ("likelihood_sd" in inner_metrics(case.rollouts, views, scores, estimates_elbo=is_elbo)) == has_it
    case = example("autoregressive")
    views = case.policy.process.exact(case.rollouts)
    scores = case.policy.view_log_probs(case.rollouts, views).detach()
    assert "likelihood_sd" not in inner_metrics(case.rollouts, views, scores, estimates_elbo=True)


@pytest.mark.parametrize(
    ("family", "objective", "has_it"),
    [
        ("masked", "espo", True),
        ("flow", "espo", True),
        ("masked", "bgpo", True),
        ("masked", "espo_unshared", False),
        ("masked", "grpo", False),
        ("masked", "cj_grpo", False),
        ("autoregressive", "espo", False),
    ],
)
def test_a_row_of_metrics_has_it_and_nothing_else_changes(tmp_path, monkeypatch, family, objective, has_it) -> None:
    """With it and without it: the same weights bit for bit, the same metrics, and the same number of forwards."""
    assert hasattr(registry.build("objective", objective), "estimates_elbo")

    def run(name):
        trainer, counted = make(family, objective, tmp_path / name), []
        trainer.policy.model.register_forward_hook(lambda *_: counted.append(1))
        trainer.train()
        rows = [
            {key: value for key, value in row.items() if not key.startswith("seconds/")}
            for row in read_rows(tmp_path / name / "metrics.jsonl")
        ]
        return trainer.policy.model.state_dict(), rows, len(counted)

    weights, rows, forwards = run("with")
    found = [row.pop("likelihood_sd", None) for row in rows]
    assert [value is not None and math.isfinite(value) and value > 0 for value in found] == [has_it] * 2
    original = update.inner_metrics
    monkeypatch.setattr(update, "inner_metrics", lambda *given, **_: original(*given, estimates_elbo=False))
    plain_weights, plain_rows, plain_forwards = run("without")
    assert rows == plain_rows and forwards == plain_forwards
    assert weights.keys() == plain_weights.keys()
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)
