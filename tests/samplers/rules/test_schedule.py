"""Dream's schedule: its quotas, and that it decides only when a position is written."""

from __future__ import annotations

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from samplers.rules.schedule import dream_quotas
from tests.tiny_policies import PROMPTS


@pytest.mark.parametrize(("columns", "steps"), [(64, 64), (64, 32), (64, 16), (36, 5), (7, 1)])
def test_quotas_are_dreams(columns, steps):
    """As its loop counts them: of the masks that are left, step after step."""
    level, left, wanted = torch.linspace(1, 1e-3, steps + 1), columns, []
    for step in range(steps):
        count = left if step == steps - 1 else int(torch.tensor(left) * (1 - level[step + 1] / level[step]))
        wanted.append(count)
        left -= count
    assert dream_quotas(columns, steps) == [count for count in wanted if count]
    assert left == 0


def test_one_column_a_step_ends_with_two():
    assert dream_quotas(64, 64) == [1] * 62 + [2]


@pytest.mark.parametrize("name", ["margin", "entropy"])
def test_steps_write_the_quotas(tiny_policies, name):
    policy = tiny_policies["masked"]
    rule = registry.get("sampler", name)(schedule="dream", num_steps=9, temperature=0.0)
    out = rule.generate(policy, policy.prompts(PROMPTS, range(3)), seed=0)
    events = out.trajectory.events
    quotas = dream_quotas(36, 9)
    for row in range(3):
        written = [int(((events.row == row) & (events.step == step) & (events.kind == 0)).sum()) for step in range(9)]
        count = sum(1 for number in written if number)
        assert written[:count] == quotas[:count]


def test_another_schedule_is_refused():
    with pytest.raises(ConfigError, match="schedule='cosine': give one of equal, dream"):
        registry.get("sampler", "margin")(schedule="cosine")
