"""Views are scored on the model's device, with gradient, and equal those of the CPU."""

from __future__ import annotations

import pytest
import torch

from dllm_rl import registry
from dllm_rl.testing.policies import random_policy, sampled
from tests.accelerator import Accelerator, Elsewhere, on_accelerator


@pytest.mark.parametrize("name", ["grpo", "espo", "agrpo", "stable_drl"])
@pytest.mark.parametrize("family", ["autoregressive", "masked", "block", "slot", "flow"])
def test_scores_and_gradients(name, family):
    objective = registry.build("objective", name)
    if family not in registry.families_of(objective):
        pytest.skip(f"{name} is not defined for the {family} family")
    policy, rollouts = sampled(family)
    views = objective.views(rollouts, policy.process, torch.Generator().manual_seed(0))
    wanted = policy.view_log_probs(rollouts, views)
    gradients = torch.autograd.grad(wanted.sum(), list(policy.model.parameters()), allow_unused=True)
    with on_accelerator(policy.model) as accelerator:
        found = policy.view_log_probs(rollouts, views)
        others = torch.autograd.grad(found.sum(), list(policy.model.parameters()), allow_unused=True)
    assert found.device.type == "cpu"
    # Only what is scored leaves the device: a value or two of each position.
    assert 0 < accelerator.copied <= 16 * views.score.numel() < views.score.numel() * policy.vocab_size
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None and isinstance(other, Elsewhere):
            torch.testing.assert_close(other.held, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_devices_that_meet_are_found():
    policy = random_policy("masked")
    with on_accelerator(policy.model), pytest.raises(RuntimeError, match="expected all tensors on"):
        next(policy.model.parameters()) + torch.ones(3)


def test_what_is_copied_is_counted():
    with Accelerator() as accelerator:
        there = torch.arange(6.0).to("meta")
        assert torch.equal((there * 2)[torch.tensor([0, 5])].cpu(), torch.tensor([0.0, 10.0]))
    assert accelerator.copied == 8
