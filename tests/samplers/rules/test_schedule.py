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


@pytest.mark.parametrize("name", ["low_confidence", "margin", "entropy"])
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


def test_a_part_of_a_block_is_written_in_the_shares_of_a_whole_one(tiny_policies):
    """Here the last one: 36 columns are three blocks of ten, and six columns."""
    policy, written = tiny_policies["block"], {}
    for schedule in ("equal", "whole_block"):
        rule = registry.build("sampler", "low_confidence", {"schedule": schedule, "num_steps": 8, "temperature": 0.0})
        steps = rule.generate(policy, policy.prompts(PROMPTS[:1], [0]), seed=0).trajectory.commit_step[0]
        written[schedule] = [
            steps[start : start + 10].unique(return_counts=True)[1].tolist() for start in (0, 10, 20, 30)
        ]
    assert written == {"equal": [[5, 5]] * 3 + [[3, 3]], "whole_block": [[5, 5]] * 3 + [[5, 1]]}


def test_another_schedule_is_refused():
    with pytest.raises(ConfigError, match="schedule='cosine': give one of equal, dream, whole_block"):
        registry.get("sampler", "margin")(schedule="cosine")
