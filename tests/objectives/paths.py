"""All paths of a real sampler on a policy small enough: every draw of every row is told what to draw.

Four ids may be written, PAD, EOS, FILL and a letter, on four columns (two for flows). Row r draws, at its n-th choice,
the n-th digit of r in base four; rows that end early differ in digits that nothing read, and are kept once.
Legend: b paths, l canvas.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from jaxtyping import Float
from torch import Tensor

import samplers.families.autoregressive
import samplers.families.flow
import samplers.grammar.projection
import samplers.loop.denoise
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts, Rollouts
from samplers.loop.sampling import JUMP, SOURCE
from tests.examples import LETTERS, example_policy

NUM_STEPS_OF_FLOW = 2
LENGTHS = {"flow": 2}
# By the letters of the text that is read; FILL and what lies behind EOS are in none.
REWARDS = torch.tensor([0.3, 0.9, -0.5, 0.2, 0.6], dtype=torch.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Every path once. policy: at float64. log_probs: of all draws, recomputed at the recorded states."""

    policy: BasePolicy
    completions: Completions
    rollouts: Rollouts
    log_probs: Float[Tensor, " b"]

    @property
    def rewards(self) -> Float[Tensor, " b"]:
        """Of what is read."""
        canvas = self.policy.canvas
        return REWARDS[[len(canvas.decode(ids)) for ids in self.completions.ids]]


def small_policy(family: str, *, seed: int = 0, length: int | None = None, **facts: Any) -> BasePolicy:
    """A policy that writes PAD, EOS, FILL and one letter (autoregressive: no PAD), with blocks of two columns."""
    length = length or LENGTHS.get(family, 4)
    policy = example_policy(family, length=length, seed=seed)

    class Small(type(policy)):  # type: ignore[misc]
        """Without the other letters."""

        @property
        def banned_ids(self) -> tuple[int, ...]:
            return (*super().banned_ids, *LETTERS[1:])

    return Small(policy.model, policy.tokenizer, replace(policy.facts, **{"block_size": 2, **facts}))


def enumerated(policy: BasePolicy, sampler: Any, *, num_coin_steps: int = 0) -> Paths:
    """Run the sampler once over all scripts.

    num_coin_steps: steps in which every column has a coin of its own, which the script says, too.
    """
    ids = sorted(set(range(policy.vocab_size)) - set(policy.banned_ids))
    length, is_flow = policy.facts.canvas_length, policy.family == "flow"
    num_choices = length * (1 + NUM_STEPS_OF_FLOW if is_flow else 1)
    num_rows = len(ids) ** num_choices * 2 ** (length * num_coin_steps)
    prompt = torch.full((num_rows, 1), LETTERS[0])
    prompts = Prompts(ids=prompt, mask=torch.ones_like(prompt, dtype=torch.bool), row_ids=torch.arange(num_rows))
    with _scripted(torch.tensor(ids), length, is_flow=is_flow):
        drawn = sampler.generate(policy, prompts, seed=0)
    drawn = drawn.rows(_once(drawn))
    exact = copy.copy(policy)
    exact.model = copy.deepcopy(policy.model).double()
    start = length * math.log(len(ids)) if is_flow else 0.0
    rollouts = rollouts_of(prompts.rows(torch.arange(len(drawn.ids))), drawn)
    return Paths(
        policy=exact,
        completions=drawn,
        rollouts=rollouts,
        log_probs=_path_log_probs(exact, rollouts) - start,
    )


def rollouts_of(prompts: Prompts, drawn: Completions) -> Rollouts:
    """The completions as one group without rewards."""
    valid, group_ids = torch.ones(len(drawn.ids), dtype=torch.bool), torch.zeros(len(drawn.ids), dtype=torch.long)
    return Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.as_drawn,
        completion_mask=drawn.mask,
        rewards=torch.zeros(len(drawn.ids)),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, drawn.mask),
    )


def _path_log_probs(policy: BasePolicy, rollouts: Rollouts) -> Float[Tensor, " b"]:
    """Sum over every draw of the record, whatever is scored."""
    record = rollouts.trajectory
    assert record is not None
    raw = record.states(record.events.end[None], policy.canvas.pad_id)[0]
    everything = replace(rollouts, completion_ids=raw, completion_mask=record.commit_step >= 0)
    views = policy.process.replay(everything, torch.Generator())
    return (policy.view_log_probs(everything, views) * views.score).sum((0, 2))


def _once(drawn: Completions) -> Tensor:
    """The first row of each path."""
    record = drawn.trajectory
    states = record.states(record.events.end[None])[0] if record.canvases is None else record.canvases.flatten(1)
    found: dict[tuple[int, ...], int] = {}
    for row, key in enumerate(torch.cat([states, record.commit_step], dim=1).tolist()):
        found.setdefault(tuple(key), row)
    return torch.tensor(list(found.values()))


@contextmanager
def _scripted(ids: Tensor, length: int, *, is_flow: bool) -> Iterator[None]:
    """While it is open, noise says what is drawn, and every position of a flow that may leave its token does."""

    def digit(row: Tensor, number: Tensor) -> Tensor:
        return row // len(ids) ** number % len(ids)

    def at(seed: int, rows: Tensor, columns: Tensor, step: Any, stream: int) -> Tensor:
        if stream == JUMP:
            return torch.zeros(torch.broadcast_shapes(rows.shape, columns.shape))
        phase = 0 if stream == SOURCE else (1 + step if is_flow else 0)
        found = digit(rows, columns + phase * length)
        return (found + 0.5) / len(ids) if stream == SOURCE else ids[found].double()

    def everywhere(seed: int, rows: Tensor, columns: Tensor, step: Any, stream: int) -> Tensor:
        return at(seed, rows[:, None], columns[None], step, stream)

    def pick(logits: Tensor, temperature: float, noise: Tensor) -> tuple[Tensor, Tensor]:
        tokens = noise.long()
        return tokens, (logits / temperature).log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)

    def coin(seed: int, rows: Tensor, columns: Tensor, step: Tensor, stream: int) -> Tensor:
        is_heads = rows // len(ids) ** length // 2 ** (step * length + columns) % 2 == 1
        return torch.where(is_heads, 1e-12, 1 - 1e-12).double()

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(samplers.loop.denoise, "uniform_at", coin))
        for module in (samplers.families.autoregressive, samplers.families.flow, samplers.grammar.projection):
            for name, instead in (("uniform_at", at), ("uniform", everywhere), ("pick", pick)):
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, instead))
        yield
