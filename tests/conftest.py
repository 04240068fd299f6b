"""Shared by all tests: one thread (two cores, several tests), and tiny policies of every family with random weights."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_policies():
    from tests.tiny_policies import make_tiny_policy

    return {family: make_tiny_policy(family) for family in ("autoregressive", "masked", "block", "slot", "flow")}
