"""A tiny policy of each family, and rollouts that it wrote: what `check_objective` checks an objective on.

The canvas has eight columns, so that the ELBO of a masked completion can be enumerated, in blocks of three and slots of
two. EOS and FILL are likely everywhere, so that completions differ in length and hold FILL.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Rollouts
from dllm_rl.testing.policies import random_policy
from dllm_rl.training.intermediate import draw_answers

PROMPTS = ("Name: Anna\nplan:\n", "Town\nplan:\n", "Plan: Pro | Basic\nplan:\n")
NUM_COLUMNS, GROUP_SIZE = 8, 3
# Added to the logits of EOS and FILL.
LIKELY = 3.0


@functools.cache
def sampled(family: str, *, seed: int = 0) -> tuple[BasePolicy, Rollouts]:
    """A policy with random weights, and groups of completions that it wrote, one of them lost.

    Group ids are neither sorted nor contiguous, prompts differ in length, and rewards are random.
    """
    policy = random_policy(family, seed=seed, sharpness=4.0, canvas_length=NUM_COLUMNS, slot_size=2, block_size=3)
    policy.model.register_forward_hook(functools.partial(_make_likely, policy))
    num_rows = len(PROMPTS) * GROUP_SIZE
    prompts = policy.prompts(PROMPTS * GROUP_SIZE, range(num_rows))
    drawn = registry.get("sampler", policy.usual_sampler)().generate(policy, prompts, seed=seed)
    group_ids = torch.tensor([5, 2, 9]).repeat(GROUP_SIZE)
    valid = torch.arange(num_rows) != num_rows // 2
    generator = torch.Generator().manual_seed(seed)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.ids,
        completion_mask=drawn.mask,
        rewards=torch.rand(num_rows, generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, drawn.mask),
        step_rewards=torch.rand(num_rows, drawn.trajectory.num_steps, generator=generator),
    )
    if drawn.trajectory.keeps_states:
        rollouts = replace(rollouts, answers=draw_answers(policy, rollouts, generator))
    return policy, rollouts


def _make_likely(policy: BasePolicy, module: Any, given: Any, output: Any) -> Any:
    logits = output.logits.clone()
    logits[..., [policy.canvas.eos_id, policy.canvas.fill_id]] += LIKELY
    output.logits = logits
    return output
