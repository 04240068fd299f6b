"""Our own views of a method, with what a public loss has hidden in place of our draws of masks and levels.

Legend: k views, b rows, l canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from jaxtyping import Bool
from torch import Tensor

from benchmarks.public_losses import MASK_ID, TOKEN, Hidden
from dllm_rl.policies.masked import MaskedProcess
from dllm_rl.records.types import Rollouts, Views

EOS_ID = 3
PROCESS = MaskedProcess(pad_id=TOKEN, eos_id=EOS_ID, banned_ids=(), mask_id=MASK_ID)


def of(objective: Any, rollouts: Rollouts, hidden: Hidden) -> Views:
    """The views of an objective."""
    make = _MADE.get(objective.name)
    if make is not None:
        return make(objective, rollouts, hidden)
    return objective.views(rollouts, PROCESS, torch.Generator().manual_seed(0))


def _espo(objective: Any, rollouts: Rollouts, hidden: Hidden) -> Views:
    """Pairs that hide the same columns, as far as they are scored."""
    counted = PROCESS.scoring_all(rollouts) if objective.scores_canvas else rollouts
    member = PROCESS.units(counted)
    first = _stacked(hidden)[::2] & member
    level = (first.sum(-1) + 0.5) / (member.sum(-1) + 1)
    with (
        mock.patch.object(MaskedProcess, "levels", return_value=(level, torch.ones_like(level))),
        mock.patch("dllm_rl.policies.masked._random_subset", return_value=first),
    ):
        return objective.views(rollouts, PROCESS, torch.Generator())


def _coupled(objective: Any, rollouts: Rollouts, hidden: Hidden) -> Views:
    """The same share, and the same columns."""
    assert hidden.level is not None
    # The method maps its uniform onto (.2, .8).
    uniform = torch.full((1, rollouts.num_rows), (hidden.level - 0.2) / 0.6, dtype=torch.float64)
    chosen = _stacked(hidden) & PROCESS.units(rollouts)
    with (
        mock.patch("objectives.coupled_grpo.stratified", return_value=uniform),
        mock.patch.object(MaskedProcess, "random_units", return_value=chosen),
    ):
        return objective.views(rollouts, PROCESS, torch.Generator())


def _spg(objective: Any, rollouts: Rollouts, hidden: Hidden) -> Views:
    """The same numbers of columns, and the same ones."""
    masks = _stacked(hidden)
    uniform = (masks.sum(-1) - 0.5) / PROCESS.units(rollouts).sum(-1)
    with (
        mock.patch("objectives.spg.stratified", return_value=uniform),
        mock.patch.object(MaskedProcess, "random_keys", return_value=(~masks).float()),
    ):
        return objective.views(rollouts, PROCESS, torch.Generator())


def _cj_grpo(objective: Any, rollouts: Rollouts, hidden: Hidden) -> Views:
    """View k is denoising step k, and all steps are replayed."""
    score = _stacked(hidden) & rollouts.completion_mask
    return Views(
        tokens=rollouts.completion_ids.expand_as(score),
        score=score,
        weight=score.double(),
        loss_weight=score.double(),
        step=torch.arange(len(score))[:, None].expand(-1, rollouts.num_rows),
    )


def _just_grpo(objective: Any, rollouts: Rollouts, hidden: Hidden) -> Views:
    """View t scores column t in every row; ours are in random order, and as many as the longest row has columns."""
    drawn = objective.views(rollouts, PROCESS, torch.Generator().manual_seed(0))
    assert drawn.loss_weight is not None
    length = rollouts.completion_ids.shape[1]
    score = torch.eye(length, dtype=torch.bool)[:, None] & drawn.score.any(0)
    return replace(
        drawn,
        tokens=rollouts.completion_ids.expand_as(score),
        score=score,
        weight=score.double(),
        loss_weight=score * drawn.loss_weight.amax(0).double(),
    )


def _stacked(hidden: Hidden) -> Bool[Tensor, "k b l"]:
    return torch.stack(hidden.masks)


_MADE: dict[str, Callable[[Any, Rollouts, Hidden], Views]] = {
    "espo": _espo,
    "coupled_grpo": _coupled,
    "spg": _spg,
    "cj_grpo": _cj_grpo,
    "just_grpo": _just_grpo,
}
