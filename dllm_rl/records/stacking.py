"""Rollout records as the tensors that objectives see: one row a turn, rows of one group under one number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Rollout, Turn
from dllm_rl.records.types import Completions, Prompts, Rollouts, SampledRow, join_completions

Group = Sequence[Rollout]


def stack_rollouts(groups: Sequence[Group], *, temperature: float, pad_id: int) -> Rollouts:
    """Stack the turns of all rollouts, group by group, whichever batches they were sampled in.

    Prompts are padded on the left to the longest. A trajectory of fewer steps than others ends in repetitions of its
    last state, at which nothing is committed. Raises ConfigError where a plan was not sampled.

    groups: rollouts that are compared with one another. temperature: of the sampler that wrote them.
    """
    turns = [
        (number, rollout, turn) for number, group in enumerate(groups) for rollout in group for turn in rollout.turns
    ]
    prompt_ids, prompt_mask, completions = _stacked([_sampled(turn) for _, _, turn in turns], pad_id)
    valid = torch.tensor([rollout.outcome.is_valid for _, rollout, _ in turns])
    group_ids = torch.tensor([number for number, _, _ in turns])
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=completions.ids,
        completion_mask=completions.mask,
        rewards=torch.tensor([rollout.reward.value for _, rollout, _ in turns], dtype=torch.float32),
        group_ids=group_ids,
        valid=valid,
        trajectory=completions.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, completions.mask),
        temperature=temperature,
    )


def _sampled(turn: Turn) -> SampledRow:
    if turn.completion.sampled is None:
        raise ConfigError(
            f"only what a policy sampled can be trained on; this plan was given as text: {turn.completion.plan[:60]!r}"
        )
    return turn.completion.sampled


def _stacked(rows: Sequence[SampledRow], pad_id: int) -> tuple[Int[Tensor, "b p"], Bool[Tensor, "b p"], Completions]:
    prompts: list[Prompts] = []
    completions: list[Completions] = []
    # Rows of one batch stand together, and are taken from it together.
    for _, members in groupby(rows, key=lambda row: id(row.completions)):
        part = list(members)
        index = torch.tensor([row.row for row in part])
        prompts.append(part[0].prompts.rows(index))
        completions.append(part[0].completions.rows(index))
    width = max(part.ids.shape[1] for part in prompts)
    ids = [torch.nn.functional.pad(part.ids, (width - part.ids.shape[1], 0), value=pad_id) for part in prompts]
    mask = [torch.nn.functional.pad(part.mask, (width - part.mask.shape[1], 0)) for part in prompts]
    return torch.cat(ids), torch.cat(mask), join_completions(completions)
