"""The score of a view: likelihood terms on its canvas, from the policy's logits.

Legend: b rows, l canvas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.policies.feed import Feed
from dllm_rl.records.types import Rollouts, Views

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy


def view_terms(policy: BasePolicy, rollouts: Rollouts, view: Views) -> Float[Tensor, "b l"]:
    """Return the likelihood terms of one view, alone; 0 where it does not score."""
    if rollouts.trajectory is not None and rollouts.trajectory.constraint is not None:
        return constrained_terms(policy, rollouts, view, rollouts.trajectory.constraint)
    score = view.score[0]
    columns = score.any(dim=0).nonzero().squeeze(1)
    if columns.numel() == 0:
        return torch.zeros(score.shape, dtype=torch.float32)
    logits = policy.view_logits(rollouts, view, columns)[0]
    if view.at_temperature:
        logits = logits / rollouts.temperature
    row, column = score.nonzero(as_tuple=True)
    targets = rollouts.completion_ids if view.targets is None else view.targets[0]
    terms = view.term(logits, targets[row, column], view, (row, column))
    return torch.zeros(score.shape, dtype=torch.float32, device=terms.device).index_put((row, column), terms)


def constrained_terms(
    policy: BasePolicy, rollouts: Rollouts, view: Views, constraint: Constraint
) -> Float[Tensor, "b l"]:
    """Return the terms of draws under a grammar: their distribution is over accepted canvases, not the model's.

    Raises ConfigError where the view does not replay draws.
    """
    if not view.is_replay:
        raise ConfigError(
            "these rollouts were drawn under the grammar, and this objective's views do not score its distribution: "
            "training would follow other probabilities than those of the draws. Use an objective that replays "
            "trajectories (such as cj_grpo) or the autoregressive family, or set decoding.grammar to evaluation."
        )
    logits = policy.score(Feed.of_view(rollouts, view))
    terms = policy.process.constrained_terms(logits / rollouts.temperature, rollouts, view, constraint)
    return torch.where(view.score[0], terms.float(), 0.0)
