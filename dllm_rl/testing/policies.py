"""Random-weight policies of the real classes, small enough for any test, and three pages; nothing is downloaded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.policies.tokenizer import train_tokenizer
from dllm_rl.records.tasks import Control, Page
from dllm_rl.records.types import Prompts

PROMPTS = (
    "task: Name: Anna; Plan: Pro\npage 1: Join\n"
    "p1.e1 text Name *\np1.e2 select Plan : Basic | Pro\np1.e3 button Send\nplan:\n",
    "task: Town: Rome\npage 1: Go\np1.e1 text Town\np1.e2 button Send\nplan:\n",
    "task: Name: Karl\npage 1: Join now please\np1.e1 text Name *\np1.e2 checkbox News\np1.e3 button Done\nplan:\n",
)
PLANS = (
    'fill p1.e1 "Anna"\nselect p1.e2 "Pro"\nsubmit p1.e3',
    'fill p1.e1 "Rome"\nsubmit p1.e2',
    'fill p1.e1 "Karl"\nsubmit p1.e3',
)


PAGES = (
    Page(
        titles=("Join",),
        controls=(
            Control(ref="p1.e1", kind="text", name="Name", required=True),
            Control(ref="p1.e2", kind="select", name="Plan", options=("Basic", "Pro")),
            Control(ref="p1.e3", kind="button", name="Send"),
        ),
    ),
    Page(
        titles=("Go",),
        controls=(
            Control(ref="p1.e1", kind="text", name="Town"),
            Control(ref="p1.e2", kind="button", name="Send"),
        ),
    ),
    Page(
        titles=("Join now please",),
        controls=(
            Control(ref="p1.e1", kind="text", name="Name", required=True),
            Control(ref="p1.e2", kind="checkbox", name="News"),
            Control(ref="p1.e3", kind="button", name="Done"),
        ),
    ),
)


def prompts_of(policy: BasePolicy, row_ids: Sequence[int]) -> Prompts:
    """Prompt and page number `row id % 3` for each row."""
    which = [row % len(PROMPTS) for row in row_ids]
    prompts = policy.prompts([PROMPTS[index] for index in which], row_ids)
    return replace(prompts, pages=tuple(PAGES[index] for index in which))


@functools.cache
def tokenizer() -> Any:
    """The built-in tokenizer, learned from these prompts and plans."""
    return train_tokenizer(PROMPTS + PLANS, 330)


def random_policy(
    family: str,
    *,
    seed: int = 0,
    sharpness: float = 12.0,
    canvas_length: int = 36,
    slot_size: int = 4,
    block_size: int = 10,
) -> BasePolicy:
    """A policy with random weights. sharpness scales the embeddings, so that distributions are far from uniform."""
    policy_class = registry.get("policy", family)
    torch.manual_seed(seed)
    words = tokenizer()
    config = TinyConfig(
        vocab_size=len(words) + 3,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_columns=canvas_length,
        has_time=policy_class.reads_time,
    )
    model = TinyForPlans(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
        model.embed.weight.mul_(sharpness / 3.0)
        if model.time is not None:
            last: Any = model.time[-1]
            last.weight.normal_(std=0.2)
    facts = policy_class.facts_class(
        family=family,
        max_prompt=96,
        canvas_length=canvas_length,
        line_width=8,
        slot_size=slot_size,
        block_size=block_size,
    )
    return policy_class(model.eval(), words, facts)
