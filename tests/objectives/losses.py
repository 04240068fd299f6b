"""An objective's loss at given scores, as the tests ask for it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dllm_rl.records.types import Loss, LossInputs, Rollouts, Views


def loss_of(
    objective: Any, rollouts: Rollouts, views: Views, new: Tensor, old: Tensor, ref: Tensor | None = None
) -> Loss:
    """The loss with the objective's own advantages."""
    advantages = objective.advantages(rollouts)
    return objective.loss(LossInputs(rollouts=rollouts, views=views, new=new, old=old, ref=ref, advantages=advantages))
