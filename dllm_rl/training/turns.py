"""Learning over turns: one training row a turn, one advantage an episode, and how much the turns of an episode weigh.

Advantages are those of episodes: a group is the episodes of one task, each of which counts once however many turns it
took, and its advantage is copied to all of its turns. An objective's loss is a mean over its rows (or their tokens),
so every row's gradient is multiplied by a weight that makes another mean of it. Which rows they are, the objective says
(`MeanOver`): most take the mean over the step.

Legend: b rows (turns), R rows and E episodes that the loss is a mean over, T turns of the row's episode.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.protocols import Objective
from dllm_rl.records.types import MeanOver, Rollouts
from dllm_rl.training.credit import NO_CREDIT, StepCredit, step_advantages

# turn_mean: 1, every turn weighs the same, so that long episodes weigh more (OpenWebRL, 2606.02031).
# trajectory_mean: R / (E T), every episode weighs the same, so that a turn of a long one weighs less.
# constant: R / (E TURNS), a turn's weight depends on no episode's length (AsyncWebRL, 2606.05597).
# A loss that divides by no number of rows has 1 for R / E.
TurnNormaliser = Literal["turn_mean", "trajectory_mean", "constant"]
USUAL_NORMALISER: TurnNormaliser = "constant"
# The constant of `constant`: about as many turns as an episode has.
TURNS = 4


def turn_advantages(objective: Objective, rollouts: Rollouts, credit: StepCredit = NO_CREDIT) -> Tensor:
    """The objective's advantages: of each row, or where rows are turns, of their episodes and the credit of the turn.

    Objectives that reward single denoising steps compare those of all turns of a group.
    """
    if rollouts.episode_ids is None or "step_rewards" in objective.requires:
        return objective.advantages(rollouts)
    first, place = first_turns(rollouts.episode_ids)
    shared = objective.advantages(rollouts.rows(first))
    if shared.dim() > 1:
        raise ConfigError(
            f"objective '{objective.name}' gave advantages of shape {tuple(shared.shape)}, and all turns of an episode "
            "share one number. Return one a row from `advantages`, or train it on whole plans."
        )
    shared = shared[place]
    if credit == NO_CREDIT or rollouts.turn_facts is None:
        return shared
    return shared + step_advantages(credit, rollouts.turn_facts, rollouts.rewards, rollouts.group_ids)


def first_turns(episode_ids: Tensor) -> tuple[Tensor, Tensor]:
    """A row of each episode, and each row's place among the episodes."""
    episodes, place = episode_ids.unique(return_inverse=True)
    rows = torch.arange(len(episode_ids))
    first = torch.full((len(episodes),), len(rows)).scatter_reduce(0, place, rows, "amin")
    return first, place


def turn_weights(
    rollouts: Rollouts, normaliser: TurnNormaliser, mean_over: MeanOver = MeanOver.STEP
) -> Float[Tensor, " b"] | None:
    """Weight of each row's gradient; None where all are 1."""
    if rollouts.episode_ids is None or normaliser == "turn_mean":
        return None
    first, place = first_turns(rollouts.episode_ids)
    scale = _rows_an_episode(rollouts, first, mean_over)
    return scale / (TURNS if normaliser == "constant" else torch.bincount(place)[place])


def _rows_an_episode(rollouts: Rollouts, first: Tensor, mean_over: MeanOver) -> Float[Tensor, " b"]:
    """R / E of each row.

    Args:
        first: A row of each episode.
    """
    if mean_over is MeanOver.NONE:
        return torch.ones(rollouts.num_rows)
    if mean_over is MeanOver.STEP:
        return torch.full((rollouts.num_rows,), rollouts.num_rows / len(first))
    _, group = rollouts.group_ids.unique(return_inverse=True)
    return (torch.bincount(group) / torch.bincount(group[first]))[group]


def weigh(
    terms: Float[Tensor, "k b l"], weights: Float[Tensor, " b"] | Float[Tensor, "b l"] | None
) -> Float[Tensor, "k b l"]:
    """The same terms, the gradient of each row, or of each of its columns, multiplied by its weight."""
    if weights is None:
        return terms
    scale = (weights[:, None] if weights.dim() == 1 else weights).to(terms.device)
    return terms.detach() + scale * (terms - terms.detach())
