"""Every registered objective keeps every promise on every family it declares."""

from __future__ import annotations

import pytest

from dllm_rl import registry
from dllm_rl.testing import check_objective, toy

CASES = [(name, family) for name, cls in registry.items("objective") for family in cls.families]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_properties(name: str, family: str) -> None:
    item = toy(family)
    objective = registry.get("objective", name)()
    assert check_objective(objective, policies=[(item.policy, item.rollouts)])
