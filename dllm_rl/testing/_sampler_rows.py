"""What a row's text must not depend on: other rows, padding, ambient randomness. And prompts stay as they are."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from dllm_rl.testing._sampler_case import ROWS, SamplerCase, fed_to
from dllm_rl.testing.policies import prompts_of

# Enough that a policy which hardly reads its prompt would notice.
PADDING = 40


def rows_are_independent(case: SamplerCase) -> None:
    """A row's text does not depend on the rows beside it or on their order, greedy or sampled."""
    for temperature in (0.0, 1.0):
        together = case.draw((0, 1, 2, 4), temperature=temperature)
        swapped = case.draw((4, 2, 1, 0), temperature=temperature)
        assert torch.equal(together.ids, swapped.ids.flip(0)), f"row order changes text at temperature {temperature}"
        alone = case.draw((2,), temperature=temperature)
        assert torch.equal(alone.ids[0], together.ids[2]), f"the batch changes text at temperature {temperature}"


def left_padding(case: SamplerCase) -> None:
    """Padding on the left of the prompts changes no text, and no recorded probability (1e-4 absolute)."""
    prompts = prompts_of(case.policy, (0, 1))
    wide = replace(
        prompts,
        ids=F.pad(prompts.ids, (PADDING, 0), value=case.policy.canvas.pad_id),
        mask=F.pad(prompts.mask, (PADDING, 0), value=False),
    )
    plain, padded = case.draw(prompts=prompts), case.draw(prompts=wide)
    assert torch.equal(plain.ids, padded.ids), "padding on the left changes text"
    gap = (plain.trajectory.log_probs - padded.trajectory.log_probs)[plain.mask].abs().max().item()
    assert gap < 1e-4, f"padding on the left changes a log-probability by {gap:.2g} nats: it is read"


def seeds_decide(case: SamplerCase) -> None:
    """Equal seeds give equal text, other seeds other text, and torch's global random state is untouched."""
    before = torch.get_rng_state()
    first, again, other = case.kept(), case.draw(ROWS), case.draw(ROWS, seed=4)
    assert torch.equal(before, torch.get_rng_state()), "the global random state was used; draw with keyed noise"
    assert torch.equal(first.ids, again.ids), "the same seed gave two texts"
    assert not torch.equal(first.ids, other.ids), "another seed gave the same text"


def the_prompt_is_text(case: SamplerCase) -> None:
    """Prompts come back as they were given, and the model reads them so, also where they contain the MASK id."""
    policy = case.policy
    prompts = prompts_of(policy, (1,))
    ids = prompts.ids.clone()
    token = policy.mask_id if policy.mask_id is not None else policy.canvas.eos_id
    ids[:, [1, ids.shape[1] // 2, -2]] = token
    given = replace(prompts, ids=ids.clone())
    with fed_to(policy) as calls:
        out = case.draw(prompts=given)
    assert torch.equal(given.ids, ids), "the prompt's ids were changed in place"
    width = ids.shape[1]
    read = [call[:, :width] for call in calls if call.shape[1] >= width]
    assert read, "the model never read the whole prompt"
    # Cached samplers feed the prompt once, and a later feed as long as it may hold something else.
    assert torch.equal(read[0], ids), "the model read another prompt than the one given"
    assert out.ids.shape == (1, policy.facts.canvas_length), f"completions have shape {tuple(out.ids.shape)}"
    assert not (out.ids == policy.mask_id).any(), "MASK was written behind a prompt that has it"
