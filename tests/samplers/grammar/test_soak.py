"""Ten thousand and more random-weight completions under the grammar: all samplers, batches, lengths, weights."""

from __future__ import annotations

import time

import pytest

from dllm_rl import registry
from dllm_rl.registry import families_of
from dllm_rl.testing.policies import PAGES, prompts_of, random_policy
from dllm_rl.testing.sampler import is_grounded

pytestmark = [pytest.mark.soak, pytest.mark.timeout(14400)]

LENGTHS, BATCHES, WEIGHTS = (36, 64, 128), (1, 8, 32), 4
CASES = [(name, family) for name, cls in registry.items("sampler") for family in families_of(cls)]


@pytest.mark.parametrize(("name", "family"), CASES)
def test_every_completion_parses_and_grounds(name, family):
    started, total, wrong = time.process_time(), 0, []
    for length in LENGTHS:
        for seed in range(WEIGHTS):
            policy = random_policy(
                family, seed=seed, sharpness=(0.5, 12.0, 60.0, 200.0)[seed % 4], canvas_length=length
            )
            for rows in BATCHES:
                for temperature in (0.0, 1.0):
                    sampler = registry.get("sampler", name)(temperature=temperature, grammar=True)
                    out = sampler.generate(policy, prompts_of(policy, range(rows)), seed=seed)
                    plans = [policy.canvas.decode(ids) for ids in out.ids]
                    wrong += [plan for row, plan in enumerate(plans) if not is_grounded(PAGES[row % 3], plan)]
                    total += len(plans)
    seconds = time.process_time() - started
    print(f"{name} on {family}: {total} completions, {len(wrong)} wrong, {seconds:.0f} s of processor time", flush=True)
    assert total * len(CASES) >= 10_000
    assert not wrong
