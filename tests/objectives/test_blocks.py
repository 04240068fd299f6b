"""Clip table cell by cell, KL estimators against exact divergences, reductions, metrics, and options of a preset."""

from __future__ import annotations

import math

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError, NonFiniteError
from objectives import (
    clip_metrics,
    dual,
    k1,
    k2,
    k3,
    mean_of_canvas,
    mean_of_rows,
    mean_of_sequences,
    mean_of_tokens,
    ppo,
    ratio_metrics,
    scored,
    unconditional,
)
from tests.examples import example

LOW, HIGH = 0.2, 0.3


def gradient(gain, log_r: float, advantage: float) -> float:
    leaf = torch.tensor(log_r, requires_grad=True)
    gain(leaf, torch.tensor(advantage)).gain.backward()
    assert leaf.grad is not None
    return float(leaf.grad)


RATIOS = {"below": math.log(0.7), "inside": math.log(1.1), "above": math.log(1.5), "far": math.log(4.0)}


@pytest.mark.parametrize(
    ("advantage", "where", "is_cut"),
    [
        (1.0, "below", False),
        (1.0, "inside", False),
        (1.0, "above", True),
        (1.0, "far", True),
        (-1.0, "below", True),
        (-1.0, "inside", False),
        (-1.0, "above", False),
        (-1.0, "far", False),
    ],
)
def test_ppo_table(advantage: float, where: str, is_cut: bool) -> None:
    given = gradient(lambda d, a: ppo(d, a, LOW, HIGH), RATIOS[where], advantage)
    expected = 0.0 if is_cut else advantage * math.exp(RATIOS[where])
    assert given == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize(("where", "is_cut"), [("below", True), ("inside", False), ("above", True), ("far", True)])
def test_unconditional_table(advantage: float, where: str, is_cut: bool) -> None:
    given = gradient(lambda d, a: unconditional(d, a, LOW, HIGH), RATIOS[where], advantage)
    assert given == pytest.approx(0.0 if is_cut else advantage * math.exp(RATIOS[where]), rel=1e-6)


@pytest.mark.parametrize(
    ("advantage", "where", "is_cut"),
    [(-1.0, "below", True), (-1.0, "above", False), (-1.0, "far", True), (1.0, "below", False), (1.0, "far", True)],
)
def test_dual_table(advantage: float, where: str, is_cut: bool) -> None:
    given = gradient(lambda d, a: dual(d, a, LOW, HIGH, 3.0), RATIOS[where], advantage)
    assert given == pytest.approx(0.0 if is_cut else advantage * math.exp(RATIOS[where]), rel=1e-6)


@pytest.mark.parametrize("log_r", [0.5, 3.0, 6.0])
def test_ppo_does_not_clip_bad_tokens_that_became_likelier_and_dual_does(log_r: float) -> None:
    assert gradient(lambda d, a: ppo(d, a, 0.2, 0.2), log_r, -1.0) == pytest.approx(-math.exp(log_r), rel=1e-5)
    assert gradient(lambda d, a: dual(d, a, 0.2, 0.2, 1.5), log_r, -1.0) == 0


def test_values_are_the_papers_formula() -> None:
    d = torch.linspace(-2, 2, 41)
    for advantage in (-1.7, 0.0, 0.9):
        ratio = d.exp()
        clipped = ratio.clamp(1 - LOW, 1 + HIGH)
        a = torch.full_like(d, advantage)
        expected = torch.minimum(ratio * a, clipped * a)
        torch.testing.assert_close(ppo(d, a, LOW, HIGH).gain, expected)
        torch.testing.assert_close(unconditional(d, a, LOW, HIGH).gain, clipped * a)
        if advantage < 0:
            expected = torch.maximum(expected, 3.0 * a)
        torch.testing.assert_close(dual(d, a, LOW, HIGH, 3.0).gain, expected)


@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_clip_zero_keeps_the_gradient_at_ratio_one_and_only_wrong_moves_after(advantage: float) -> None:
    gain = lambda d, a: ppo(d, a, 0.0, 0.0)  # noqa: E731
    assert gradient(gain, 0.0, advantage) == advantage
    right, wrong = math.copysign(0.01, advantage), math.copysign(0.01, -advantage)
    assert gradient(gain, right, advantage) == 0
    assert gradient(gain, wrong, advantage) == pytest.approx(advantage * math.exp(wrong))


@pytest.mark.parametrize("clip", [ppo, unconditional])
def test_far_ratios_stay_finite(clip) -> None:
    for log_r in (-500.0, 500.0):
        for advantage in (-1.0, 1.0):
            assert math.isfinite(gradient(lambda d, a: clip(d, a, LOW, HIGH), log_r, advantage))


def test_kl_values_and_slopes() -> None:
    d = torch.tensor([-3.0, -0.1, 0.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(k1(d), d)
    torch.testing.assert_close(k2(d), d**2 / 2)
    torch.testing.assert_close(k3(d), (-d).exp() - 1 + d)
    (slope,) = torch.autograd.grad(k3(d).sum(), d)
    torch.testing.assert_close(slope, 1 - (-d).exp())
    (slope,) = torch.autograd.grad(k2(d).sum(), d)
    torch.testing.assert_close(slope, d)
    far = torch.tensor([-20.0, 20.0])
    torch.testing.assert_close(k3(far), k3(torch.tensor([-5.0, 5.0])))


def test_expected_kl_and_expected_gradients_are_the_exact_divergences() -> None:
    """On a categorical law: E k1 = E k3 = KL(new, ref).

    With the samples fixed, the expected gradient of k2 is that of KL(new, ref), of k3 that of KL(ref, new), of k1 zero.
    """
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    ref = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0)
    new = theta.log_softmax(0)
    p = new.exp().detach()
    reverse = (new.exp() * (new - ref)).sum()
    forward = (ref.exp() * (ref - new)).sum()
    for estimator in (k1, k3):
        assert float((p * estimator(new - ref)).sum().detach()) == pytest.approx(float(reverse.detach()))

    def slope(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, theta, retain_graph=True)[0]

    torch.testing.assert_close(slope((p * k2(new - ref)).sum()), slope(reverse))
    torch.testing.assert_close(slope((p * k3(new - ref)).sum()), slope(forward))
    torch.testing.assert_close(slope((p * k1(new - ref)).sum()), torch.zeros(5, dtype=torch.float64))


def test_reductions_are_their_formulas() -> None:
    rollouts = example("autoregressive").rollouts
    entries = torch.rand(rollouts.completion_mask.shape) * rollouts.completion_mask
    length = rollouts.completion_mask.sum(-1).clamp(min=1)
    rows = [b for b in range(rollouts.num_rows) if rollouts.valid[b]]
    sequences = sum(float(entries[b].sum() / length[b]) for b in rows) / len(rows)
    assert float(mean_of_sequences(rollouts, entries)) == pytest.approx(sequences, rel=1e-5)
    total = sum(float(entries[b].sum()) for b in rows)
    tokens = sum(int(rollouts.completion_mask[b].sum()) for b in rows)
    assert float(mean_of_tokens(rollouts, entries)) == pytest.approx(total / tokens, rel=1e-5)
    assert float(mean_of_canvas(rollouts, entries)) == pytest.approx(total / len(rows) / 6, rel=1e-5)
    assert float(mean_of_rows(rollouts, entries[:, 0])) == pytest.approx(
        sum(float(entries[b, 0]) for b in rows) / len(rows), rel=1e-5
    )


def test_a_scored_token_without_probability_is_a_named_error() -> None:
    item = example("autoregressive")
    views = item.policy.process.exact(item.rollouts)
    broken = torch.zeros(views.score.shape)
    broken[0, 1, 0] = -torch.inf
    with pytest.raises(NonFiniteError, match="row 1, column 0"):
        scored(views, broken)
    unscored = torch.where(views.score, 0.0, -torch.inf)
    assert torch.equal(scored(views, unscored), torch.zeros_like(unscored))


def test_metrics_read_the_scored_entries_only() -> None:
    d = torch.tensor([0.0, 0.5, -0.5, 9.0])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    scored = torch.tensor([True, True, True, False])
    metrics = ratio_metrics(d, advantages, scored)
    assert metrics["ratio/max"] == pytest.approx(math.exp(0.5))
    assert metrics["ratio/negative/max"] == pytest.approx(1.0)
    assert metrics["ratio_dev"] == pytest.approx(math.exp(0.5) - 1)
    clips = clip_metrics(ppo(d, advantages, 0.2, 0.2), advantages, d, scored)
    assert clips["clip_ratio/high_mean"] == pytest.approx(1 / 3)
    assert clips["clip_ratio/low_mean"] == pytest.approx(1 / 3)
    assert clips["clip_ratio/region_mean"] == pytest.approx(2 / 3)
    assert ratio_metrics(d, advantages, torch.zeros(4, dtype=torch.bool)) == {}


@pytest.mark.parametrize(
    ("name", "options", "family", "message"),
    [
        ("esop", {}, None, "Did you mean 'espo'"),
        ("espo", {"num_drawss": 1}, None, "Did you mean 'num_draws'"),
        ("espo", {"advantage": "centered"}, None, "'centred', 'normalised', 'leave_one_out' or 'shrunk'"),
        ("grpo", {"clip_low": 1.5}, None, "less than 1"),
        ("grpo", {"beta": -1}, None, "greater than or equal to 0"),
        ("espo_unshared", {"beta": 0.1}, None, "beta=0.1"),
        ("espo_unshared", {}, "autoregressive", "undefined for the autoregressive family"),
    ],
)
def test_a_wrong_preset_is_refused_with_the_reason(name: str, options: dict, family: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.build("objective", name, options, family=family)


def test_options_of_a_preset_reach_the_objective() -> None:
    built = registry.build("objective", "espo", {"beta": 0, "num_draws": 1, "advantage": "centred"}, family="masked")
    assert (built.beta, built.num_draws, built.advantage, built.needs_ref) == (0.0, 1, "centred", False)
    assert registry.build("objective", "cj_grpo", {"num_steps": None}).num_steps is None


def test_ratio_metrics_take_more_entries_than_torch_quantile() -> None:
    size = 2**24 + 1
    log_ratio = torch.linspace(-1, 1, size)
    metrics = ratio_metrics(log_ratio, torch.ones(size), torch.ones(size, dtype=torch.bool))
    assert metrics["ratio/q95"] == pytest.approx(math.exp(0.9), rel=1e-4)


@pytest.mark.parametrize("ceiling", [0.0, 0.5, 1.0])
def test_a_dual_clip_of_one_or_less_is_refused(ceiling: float) -> None:
    with pytest.raises(ConfigError, match="ceiling"):
        registry.build("objective", "bgpo", {"ceiling": ceiling})
