"""Ten thousand and more random-weight completions under the grammar, over all samplers and several sets of weights."""

from __future__ import annotations

import time

import pytest

from dllm_rl import registry
from dllm_rl.testing.policies import PAGES, prompts_of, random_policy
from dllm_rl.testing.sampler import is_grounded

pytestmark = [pytest.mark.soak, pytest.mark.timeout(14400)]

ROWS, WEIGHTS = 32, 16


def test_every_completion_parses_and_grounds():
    started, total, wrong = time.process_time(), 0, []
    for name, cls in registry.items("sampler"):
        for family in cls.families:
            for seed in range(WEIGHTS):
                policy = random_policy(family, seed=seed, sharpness=(0.5, 12.0, 200.0)[seed % 3])
                for temperature in (0.0, 1.0):
                    sampler = cls(temperature=temperature, grammar=True)
                    out = sampler.generate(policy, prompts_of(policy, range(ROWS)), seed=seed)
                    plans = [policy.canvas.decode(ids) for ids in out.ids]
                    wrong += [
                        (name, seed, temperature, plan)
                        for row, plan in enumerate(plans)
                        if not is_grounded(PAGES[row % 3], plan)
                    ]
                    total += len(plans)
    print(f"{total} completions, {len(wrong)} wrong, {time.process_time() - started:.0f} s of processor time")
    assert total >= 10_000
    assert not wrong
