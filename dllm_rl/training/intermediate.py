"""Intermediate predictions of a denoising trajectory, and their rewards (MDPO, 2508.13148).

At each recorded step the policy is asked once more, and all that is still open is filled in at once: tokens that the
step committed stand as the sampler drew them, the others are sampled from the policy's distribution. A cheap scorer of
the environment rewards the texts; from the last writing step of a row on, its reward is the environment's. Where a
sampler constrains a position, its distribution differs from the policy's, which predictions are sampled from.

Legend: b rows, s steps, l canvas, n rows asked at once, v vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.trajectory import Trajectory
from dllm_rl.records.types import Answers, Prompts, Rollouts


class Asked(Protocol):
    """What a row answers: a task, or a situation in an episode."""

    @property
    def id(self) -> str:
        """Equal ids ask for the same."""
        ...


A = TypeVar("A", bound=Asked)
Scorer = Callable[[Sequence[tuple[A, str]]], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Rollouts with answers and step rewards.

    Attributes:
        num_forwards: Rows x forwards.
        num_scored: Different plans scored.
    """

    rollouts: Rollouts
    num_forwards: int
    num_scored: int
    seconds: float

    @property
    def metrics(self) -> dict[str, float]:
        """What the intermediate rewards cost, for the metric row."""
        return {
            "answers/forwards": float(self.num_forwards),
            "answers/scored": float(self.num_scored),
            "seconds/answers": self.seconds,
        }


def with_answers(
    policy: BasePolicy, rollouts: Rollouts, generator: torch.Generator, *, batch_rows: int = 32
) -> Answered:
    """Add `answers` to rollouts, and no rewards of theirs."""
    started = time.perf_counter()
    answers = draw_answers(policy, rollouts, generator, batch_rows=batch_rows)
    return Answered(
        rollouts=replace(rollouts, answers=answers),
        num_forwards=int(_asks(policy, _recorded(rollouts)).sum()),
        num_scored=0,
        seconds=time.perf_counter() - started,
    )


def with_step_rewards(
    policy: BasePolicy,
    rollouts: Rollouts,
    asked: Sequence[A],
    score_many: Scorer[A],
    generator: torch.Generator,
    *,
    batch_rows: int = 32,
) -> Answered:
    """Add `answers` and `step_rewards` to rollouts whose row b answers asked[b]."""
    started = time.perf_counter()
    answered = with_answers(policy, rollouts, generator, batch_rows=batch_rows)
    answers = answered.rollouts.answers
    assert answers is not None
    steps, last = torch.arange(answers.is_asked.shape[1]), last_step(_recorded(rollouts))[:, None]
    places = (answers.is_asked & (steps < last) & rollouts.valid[:, None]).nonzero().tolist()
    pairs = [(asked[row], policy.plan_of(answers.ids[row, step])) for row, step in places]
    unique = list(dict.fromkeys((item.id, text) for item, text in pairs))
    by_id = {item.id: item for item in asked}
    values = dict(zip(unique, score_many([(by_id[name], text) for name, text in unique]), strict=True))
    found = rollouts.rewards[:, None].repeat(1, len(steps))
    for (row, step), (item, text) in zip(places, pairs, strict=True):
        found[row, step] = values[item.id, text]
    return replace(
        answered,
        rollouts=replace(answered.rollouts, step_rewards=_carried(found, answers.is_asked | (steps >= last))),
        num_scored=len(unique),
        seconds=time.perf_counter() - started,
    )


def _carried(rewards: Float[Tensor, "b s"], is_known: Bool[Tensor, "b s"]) -> Float[Tensor, "b s"]:
    """The known rewards, each carried on to the next one; 0 before the first."""
    before = torch.where(is_known, torch.arange(rewards.shape[1]), -1).cummax(dim=1).values
    return torch.where(before >= 0, rewards.gather(1, before.clamp(min=0)), 0.0)


@torch.no_grad()
def draw_answers(
    policy: BasePolicy, rollouts: Rollouts, generator: torch.Generator, *, batch_rows: int = 32
) -> Answers:
    """Complete the canvas before every recorded step, at the rollouts' temperature.

    Rows past their end, and steps that wrote nothing in a row (whose canvas comes again): no score. Every position has
    noise of its own, whichever rows are asked together.
    """
    recorded = _recorded(rollouts)
    assert recorded.canvases is not None
    before, after = recorded.canvases[:, :-1], recorded.canvases[:, 1:]
    ids, is_drawn = after.clone(), torch.zeros_like(after, dtype=torch.bool)
    confidence, certainty = torch.zeros(after.shape), torch.zeros(after.shape)
    asks = _asks(policy, recorded)
    noise = torch.rand(after.shape, generator=generator, dtype=torch.float64)
    for step in range(before.shape[1]):
        for rows in asks[:, step].nonzero().squeeze(1).split(batch_rows):
            probabilities = _probabilities(policy, rollouts, rows, step)
            drawn = _drawn(probabilities, noise[rows, step])
            tokens, is_predicted = policy.process.intermediate_prediction(
                before[rows, step], after[rows, step], drawn, rollouts.prompt_mask[rows]
            )
            ids[rows, step], is_drawn[rows, step] = tokens, is_predicted
            index = tokens[..., None].to(probabilities.device)
            confidence[rows, step] = probabilities.gather(-1, index).squeeze(-1).float().cpu()
            certainty[rows, step] = probabilities.amax(-1).float().cpu() * is_predicted
    ids = policy.canvas.close(ids.flatten(0, 1))
    score = policy.canvas.until_eos(ids).unflatten(0, after.shape[:2]) & is_drawn
    ids = ids.unflatten(0, after.shape[:2])
    return Answers(ids=ids, score=score, confidence=confidence * score, certainty=certainty, is_asked=asks)


def _asks(policy: BasePolicy, recorded: Trajectory) -> Bool[Tensor, "b s"]:
    """Steps at which the policy is asked, up to a row's last one."""
    assert recorded.canvases is not None
    steps = torch.arange(recorded.num_steps, device=recorded.canvases.device)
    return policy.process.predicting_steps(recorded.canvases) & (steps <= last_step(recorded)[:, None])


def last_step(recorded: Trajectory) -> Int[Tensor, " b"]:
    """The last step at which a row's canvas changed; 0 where none did."""
    assert recorded.canvases is not None
    is_changed = (recorded.canvases[:, 1:] != recorded.canvases[:, :-1]).any(-1)
    return (is_changed * torch.arange(is_changed.shape[1])).amax(-1)


def _recorded(rollouts: Rollouts) -> Trajectory:
    if rollouts.trajectory is None or not rollouts.trajectory.keeps_states:
        raise ConfigError(
            "intermediate answers need recorded canvases, which these rollouts lack: the autoregressive family has "
            "no intermediate answer. Use a diffusion policy with a sampler that records its trajectory."
        )
    return rollouts.trajectory


def _probabilities(
    policy: BasePolicy, rollouts: Rollouts, rows: Int[Tensor, " n"], step: int
) -> Float[Tensor, "n l v"]:
    """Of each column's tokens by the policy at the canvas before the step, on the policy's device."""
    recorded = _recorded(rollouts)
    assert recorded.canvases is not None
    prompts = Prompts(ids=rollouts.prompt_ids[rows], mask=rollouts.prompt_mask[rows], row_ids=rows)
    logits = policy.logits(
        prompts,
        recorded.canvases[rows, step],
        time=None if recorded.time is None else recorded.time[step].expand(len(rows)),
        order=None if recorded.order is None else recorded.order[rows, step],
    )
    return (logits / rollouts.temperature).softmax(-1)


def _drawn(probabilities: Float[Tensor, "n l v"], noise: Float[Tensor, "n l"]) -> Int[Tensor, "n l"]:
    """One token a column, by inverse CDF."""
    cumulative = probabilities.double().cumsum(-1)
    level = noise.to(cumulative.device) * cumulative[..., -1]
    tokens = torch.searchsorted(cumulative, level[..., None], right=True).squeeze(-1)
    return tokens.clamp(max=probabilities.shape[-1] - 1).cpu()
