"""Policies and rollouts small enough to enumerate: the real classes on eight ids and six columns, nothing downloaded.

Legend: b rows, l canvas.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.records.canvas import FILL_TOKEN
from dllm_rl.records.types import Prompts, Rollouts
from dllm_rl.testing.policies import rewarded

PAD, EOS, MASK, FILL = range(4)
LETTERS = (4, 5, 6, 7)
NUM_IDS = 8
SLOT_SIZE, BLOCK_SIZE, NUM_STEPS = 2, 4, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Alphabet:
    """What a policy asks of a tokenizer, for eight ids: PAD, EOS, MASK, FILL and four letters."""

    pad_token_id: int = PAD
    eos_token_id: int = EOS
    mask_token_id: int = MASK
    unk_token_id: None = None

    def __len__(self) -> int:
        return NUM_IDS

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Return the ids of the letters a to d; a line break is d."""
        return [LETTERS["abcd".index(letter.replace("\n", "d"))] for letter in text]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """Return the id of FILL."""
        return FILL if token == FILL_TOKEN else None

    def decode(self, ids: list[int], **_: Any) -> str:
        """Return the letters of ids."""
        return "".join("abcd"[token - LETTERS[0]] for token in ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A policy with rollouts to check an objective on."""

    policy: BasePolicy
    rollouts: Rollouts


def example_policy(family: str, *, length: int = 6, seed: int = 0, sharpness: float = 1.0) -> BasePolicy:
    """Return a policy with random weights. sharpness scales the logits."""
    policy_class = registry.get("policy", family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = TinyConfig(
            vocab_size=NUM_IDS,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_columns=length,
            has_time=policy_class.reads_time,
            pad_token_id=PAD,
        )
        model = TinyForPlans(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.1 if name.startswith("time.") else 0.5)
            model.norm.weight.mul_(sharpness)
    facts = {"family": family, "canvas_length": length, "line_width": length, "max_prompt": 16}
    facts |= {"slot_size": SLOT_SIZE, "block_size": BLOCK_SIZE}
    return policy_class(model.eval(), Alphabet(), policy_class.facts_class.from_dict(facts))


def example_rollouts(
    policy: BasePolicy, *, num_groups: int = 3, group_size: int = 4, prompt_length: int = 5, seed: int = 0
) -> Rollouts:
    """Return groups of completions that the family's usual sampler drew, with random rewards and one row lost.

    Group ids are neither sorted nor contiguous, prompts are of different lengths.
    """
    generator = torch.Generator().manual_seed(seed)
    num_rows = num_groups * group_size
    lengths = torch.randint(2, prompt_length + 1, (num_rows,), generator=generator).tolist()
    letters = [torch.randint(4, (length,), generator=generator) + LETTERS[0] for length in lengths]
    prompts = Prompts.left_padded([row.tolist() for row in letters], row_ids=range(num_rows), pad_id=PAD)
    drawn = _sampler(policy).generate(policy, prompts, seed=seed)
    group_ids = (torch.arange(num_groups) * 7 + 3).repeat(group_size)
    valid = torch.ones(num_rows, dtype=torch.bool)
    valid[num_rows // 2] = False
    return rewarded(policy, prompts, drawn, group_ids=group_ids, valid=valid, generator=generator)


def _sampler(policy: BasePolicy) -> Any:
    """The family's usual sampler, with few steps."""
    cls = registry.get("sampler", policy.usual_sampler)
    takes_steps = "num_steps" in {field.name for field in fields(cls)}
    return cls(num_steps=NUM_STEPS) if takes_steps else cls()


def example(family: str, *, seed: int = 0) -> Example:
    """Return the example of a family."""
    policy = example_policy(family, seed=seed)
    return Example(policy=policy, rollouts=example_rollouts(policy, seed=seed))
