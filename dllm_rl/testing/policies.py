"""Random-weight policies of the real classes, small enough for any test, three pages, and rollouts that they wrote."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans, train_tokenizer
from dllm_rl.records.tasks import Control, Observation
from dllm_rl.records.types import Completions, Prompts, Rollouts
from dllm_rl.training.intermediate import draw_answers

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
    Observation(
        titles=("Join",),
        controls=(
            Control(ref="p1.e1", kind="text", name="Name", required=True),
            Control(ref="p1.e2", kind="select", name="Plan", options=("Basic", "Pro")),
            Control(ref="p1.e3", kind="button", name="Send"),
        ),
    ),
    Observation(
        titles=("Go",),
        controls=(
            Control(ref="p1.e1", kind="text", name="Town"),
            Control(ref="p1.e2", kind="button", name="Send"),
        ),
    ),
    Observation(
        titles=("Join now please",),
        controls=(
            Control(ref="p1.e1", kind="text", name="Name", required=True),
            Control(ref="p1.e2", kind="checkbox", name="News"),
            Control(ref="p1.e3", kind="button", name="Done"),
        ),
    ),
)


def prompts_of(policy: BasePolicy, row_ids: Sequence[int]) -> Prompts:
    """Prompt, page and instruction number `row id % 3` for each row."""
    which = [row % len(PROMPTS) for row in row_ids]
    prompts = policy.prompts([PROMPTS[index] for index in which], row_ids)
    return replace(
        prompts,
        pages=tuple(PAGES[index] for index in which),
        instructions=tuple(PROMPTS[index].partition("\n")[0].removeprefix("task: ") for index in which),
    )


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


SHORT_PROMPTS = ("Name: Anna\nplan:\n", "Town\nplan:\n", "Plan: Pro | Basic\nplan:\n")
NUM_COLUMNS, GROUP_SIZE = 8, 3
# Added to the logits of EOS and FILL.
LIKELY = 3.0


@functools.cache
def sampled(family: str, *, seed: int = 0) -> tuple[BasePolicy, Rollouts]:
    """A policy with random weights, and groups of completions that it wrote, one of them lost.

    The canvas has eight columns, so that the ELBO of a masked completion can be enumerated. EOS and FILL are likely
    everywhere, so that completions differ in length and hold FILL.

    Group ids are neither sorted nor contiguous, prompts differ in length, and rewards are random.
    """
    policy = random_policy(family, seed=seed, sharpness=4.0, canvas_length=NUM_COLUMNS, slot_size=2, block_size=3)
    policy.model.register_forward_hook(functools.partial(_make_likely, policy))
    num_rows = len(SHORT_PROMPTS) * GROUP_SIZE
    prompts = policy.prompts(SHORT_PROMPTS * GROUP_SIZE, range(num_rows))
    drawn = registry.get("sampler", policy.usual_sampler)().generate(policy, prompts, seed=seed)
    group_ids = torch.tensor([5, 2, 9]).repeat(GROUP_SIZE)
    valid = torch.arange(num_rows) != num_rows // 2
    generator = torch.Generator().manual_seed(seed)
    rollouts = rewarded(policy, prompts, drawn, group_ids=group_ids, valid=valid, generator=generator)
    return policy, rollouts


def rewarded(
    policy: BasePolicy,
    prompts: Prompts,
    drawn: Completions,
    *,
    group_ids: Int[Tensor, " b"],
    valid: Bool[Tensor, " b"],
    generator: torch.Generator,
) -> Rollouts:
    """Stack completions with random rewards, and with intermediate predictions where states were recorded."""
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.as_drawn,
        completion_mask=drawn.mask,
        rewards=torch.rand(len(drawn.ids), generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, drawn.mask),
        step_rewards=torch.rand(len(drawn.ids), drawn.trajectory.num_steps, generator=generator),
    )
    if not drawn.trajectory.keeps_states:
        return rollouts
    return replace(rollouts, answers=draw_answers(policy, rollouts, generator))


def _make_likely(policy: BasePolicy, module: Any, given: Any, output: Any) -> Any:
    logits = output.logits.clone()
    logits[..., torch.tensor([policy.canvas.eos_id, policy.canvas.fill_id])] += LIKELY
    output.logits = logits
    return output


@contextmanager
def logits_changed(policy: BasePolicy, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While it is open, the policy's model gives what `change` makes of its logits, (b t v)."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        output.logits = change(output.logits)
        return output

    handle = policy.model.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
