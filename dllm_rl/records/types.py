"""Tensor records that travel between samplers, objectives, policies and trainer.

Legend: b rows (prompts x group), p prompt length (left-padded), l canvas length, s denoising steps, k views.
Every record is frozen: a rollout is made once and never changes afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.terms import LOG_PROB, Term
from dllm_rl.records.tasks import Observation
from dllm_rl.records.trajectory import Trajectory, join_trajectories

if TYPE_CHECKING:
    from dllm_rl.policies.attention import Reading


class Replays(Enum):
    """What an objective scores of a recorded trajectory.

    NONE: none of its draws; views are hidden or noised anew.
    STEPS: draws, each at the state from which it was drawn.
    MERGED: draws of several steps at one state, the first of theirs.
    """

    NONE = "none"
    STEPS = "steps"
    MERGED = "merged"


class MeanOver(Enum):
    """What a loss divides the sum of its rows by, so that turns can weigh as they are asked to.

    STEP: the rows of the step, or their tokens.
    GROUP: the rows of each group, and the groups.
    NONE: the groups alone.
    """

    STEP = "step"
    GROUP = "group"
    NONE = "none"


def _map(record: Any, function: Callable[[Tensor], Tensor]) -> Any:
    changes = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if isinstance(value, Tensor):
            changes[item.name] = function(value)
    return replace(record, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Tokenised prompts, left-padded. row_ids name the rows for the noise, so that no draw depends on the batch.

    Attributes:
        pages: What each row's plan acts on, for decoding under the grammar or a guide.
        instructions: What each row's plan is to do, for decoding under a guide.
        given: Tokens that stand on each row's canvas before anything is drawn, the policy's blank elsewhere; None for
            empty canvases. Samplers of the masked and the block family write what is left; others refuse them.
    """

    ids: Int[Tensor, "b p"]
    mask: Bool[Tensor, "b p"]
    row_ids: Int[Tensor, " b"]
    pages: tuple[Observation, ...] | None = None
    instructions: tuple[str, ...] | None = None
    given: Int[Tensor, "b l"] | None = None

    @classmethod
    def left_padded(cls, encoded: Sequence[Sequence[int]], *, row_ids: Sequence[int], pad_id: int) -> Prompts:
        """Prompts of these token ids, padded to the longest."""
        lengths = torch.tensor([len(tokens) for tokens in encoded])
        longest = int(lengths.max())
        ids = torch.full((len(encoded), longest), pad_id, dtype=torch.long)
        for row, tokens in zip(ids, encoded, strict=True):
            row[longest - len(tokens) :] = torch.tensor(tokens)
        mask = torch.arange(longest) >= (longest - lengths)[:, None]
        return cls(ids=ids, mask=mask, row_ids=torch.tensor(list(row_ids), dtype=torch.long))

    def rows(self, index: Tensor) -> Prompts:
        """The rows of this index."""
        rows = index.tolist()
        pages = None if self.pages is None else tuple(self.pages[row] for row in rows)
        instructions = None if self.instructions is None else tuple(self.instructions[row] for row in rows)
        return replace(_map(self, lambda tensor: tensor[index]), pages=pages, instructions=instructions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """The completion predicted at each denoising step: all open positions filled in at once.

    Attributes:
        ids: The completed canvas of a step, closed at its EOS.
        score: Positions that were predicted, up to that EOS, FILL included.
        confidence: Probability of each predicted token under the policy that sampled, 0 where not scored.
        certainty: Probability of its most likely token at each predicted position, 0 elsewhere.
        is_asked: Steps at which the row was asked: those that wrote something in it.
    """

    ids: Int[Tensor, "b s l"]
    score: Bool[Tensor, "b s l"]
    confidence: Float[Tensor, "b s l"]
    certainty: Float[Tensor, "b s l"]
    is_asked: Bool[Tensor, "b s"]

    def rows(self, index: Tensor) -> Answers:
        """The rows of this index."""
        return _map(self, lambda tensor: tensor[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Completions:
    """What a sampler returns.

    Attributes:
        ids: The canvas as it is read, PAD behind the first EOS.
        mask: 1 on what is scored: every draw that could have changed the plan, FILL, EOS and PAD included. Not what a
            grammar forced, what closing wrote, or what was drawn behind an EOS that stood already, if nothing read it.
        nfe: Model forwards, one after another, that the batch took; a large batch is cut into smaller ones, whose
            forwards are not added up, so that it says the same on every device.
        token_forwards: Sum over forwards of active rows x query positions.
    """

    ids: Int[Tensor, "b l"]
    mask: Bool[Tensor, "b l"]
    trajectory: Trajectory
    nfe: int
    token_forwards: int

    @property
    def as_drawn(self) -> Int[Tensor, "b l"]:
        """The canvas with what was drawn in every scored column, also where a later EOS hides it."""
        events = self.trajectory.events
        return torch.where(self.mask, self.trajectory.states(events.end[None])[0], self.ids)

    def rows(self, index: Tensor) -> Completions:
        """The rows of this index; what the batch cost stays."""
        return replace(_map(self, lambda tensor: tensor[index]), trajectory=self.trajectory.rows(index))


def join_completions(parts: Sequence[Completions], place: Tensor | None = None) -> Completions:
    """Join parts of a batch into one record of all rows.

    Shorter trajectories stay at their last state; nfe is that of the longest.

    Args:
        place: For each output row, its index in the concatenated parts. Default: their order is kept.
    """
    rows = torch.arange(sum(len(part.ids) for part in parts)) if place is None else place
    return Completions(
        ids=torch.cat([part.ids for part in parts])[rows],
        mask=torch.cat([part.mask for part in parts])[rows],
        trajectory=join_trajectories([part.trajectory for part in parts], rows),
        nfe=max(part.nfe for part in parts),
        token_forwards=sum(part.token_forwards for part in parts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledRow:
    """One row of a batch that a sampler wrote, which stays whole until its rows are stacked for training.

    Attributes:
        prompts: What the batch was written from.
        completions: The batch.
    """

    prompts: Prompts
    completions: Completions
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sizes of the whole optimiser step, over ranks and micro-batches, by which reductions divide.

    Groups with equal rewards count too, whether or not their rows are computed.

    Attributes:
        rows: Valid rows.
        groups: Groups with at least one valid row.
        tokens: Scored columns of valid rows.
        max_len: Canvas length.
    """

    rows: int
    groups: int
    tokens: int
    max_len: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFacts:
    """What credit of single turns is computed from (`dllm_rl.training.credit`), a row each.

    Attributes:
        anchors: Equal numbers for turns that stood at the same page.
        to_go: Turns that followed in the episode.
        is_idle: 1 for turns that the published order of the rules charges, in the second column the strict one.
    """

    anchors: Int[Tensor, " b"]
    to_go: Int[Tensor, " b"]
    is_idle: Float[Tensor, "b 2"]

    def rows(self, index: Tensor) -> TurnFacts:
        """The rows of this index."""
        return _map(self, lambda tensor: tensor[index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Completions with their rewards, grouped per task by group_ids (never by position).

    Attributes:
        completion_ids: The canvas as it was drawn; what is read of it ends at the first EOS (`Completions.as_drawn`).
        completion_mask: What is scored (`Completions.mask`); lengths that people read count visible tokens instead.
        valid: False where the environment lost the rollout; such a row has no gradient and moves no baseline.
        episode_ids: The episode that each row is a turn of; None where every row is a rollout of its own.
        turn_facts: What is known of the turn; None as above.
        answers: Intermediate answers; recorded only for objectives that require them.
        step_rewards: Their rewards, the environment's from a row's last step on. A step that wrote nothing in a row
            has the one before it, or 0.
        temperature: Of the sampler.
    """

    prompt_ids: Int[Tensor, "b p"]
    prompt_mask: Bool[Tensor, "b p"]
    completion_ids: Int[Tensor, "b l"]
    completion_mask: Bool[Tensor, "b l"]
    rewards: Float[Tensor, " b"]
    group_ids: Int[Tensor, " b"]
    valid: Bool[Tensor, " b"]
    trajectory: Trajectory | None
    totals: Totals
    step_rewards: Float[Tensor, "b s"] | None = None
    answers: Answers | None = None
    temperature: float = 1.0
    episode_ids: Int[Tensor, " b"] | None = None
    turn_facts: TurnFacts | None = None

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.completion_ids.shape[0]

    def rows(self, index: Tensor) -> Rollouts:
        """The rows of this index; `totals` stays that of the whole step, so that micro-batch losses add up."""
        trajectory = None if self.trajectory is None else self.trajectory.rows(index)
        answers = None if self.answers is None else self.answers.rows(index)
        facts = None if self.turn_facts is None else self.turn_facts.rows(index)
        mapped = _map(self, lambda tensor: tensor[index])
        return replace(mapped, trajectory=trajectory, answers=answers, turn_facts=facts)

    @staticmethod
    def count_totals(valid: Tensor, group_ids: Tensor, completion_mask: Tensor) -> Totals:
        """Count the sizes of a whole step from its (unsplit) tensors."""
        return Totals(
            rows=int(valid.sum()),
            groups=int(group_ids[valid].unique().numel()),
            tokens=int(completion_mask[valid].sum()),
            max_len=completion_mask.shape[1],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """Corrupted copies of the completions, drawn once and scored by the current, old and reference policy alike.

    Attributes:
        tokens: What the model sees.
        score: Which positions are scored.
        weight: Of a term inside the log-likelihood.
        prompt_tokens: The prompt as seen. Default: unchanged.
        targets: What is scored. Default: the completion.
        loss_weight: Multiplies loss terms.
        time: Noise level of each view (flow family).
        time_next: Where its transition ends.
        step: Column of (b, s) advantages.
        order: Feed order of the canvas (slot family).
        reading: How the canvas is read. Default: as the policy does.
        term: What the likelihood of a target is, given logits.
        at_temperature: Targets were sampled at the sampler's temperature, and are scored at it; else at 1.
        is_replay: Scores what the sampler wrote, under the distribution that it was sampled from.
    """

    tokens: Int[Tensor, "k b l"]
    score: Bool[Tensor, "k b l"]
    weight: Float[Tensor, "k b l"]
    prompt_tokens: Int[Tensor, "k b p"] | None = None
    targets: Int[Tensor, "k b l"] | None = None
    loss_weight: Float[Tensor, "k b l"] | None = None
    time: Float[Tensor, "k b"] | None = None
    time_next: Float[Tensor, "k b"] | None = None
    step: Int[Tensor, "k b"] | None = None
    order: Int[Tensor, "k b l"] | None = None
    reading: Reading | None = None
    term: Term = LOG_PROB
    at_temperature: bool = False
    is_replay: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether one view scores the completion itself, every token given all earlier ones."""
        return self.is_replay and self.step is None

    @property
    def num_views(self) -> int:
        """Number of views, k."""
        return self.tokens.shape[0]

    def rows(self, index: Tensor) -> Views:
        """The rows of this index, in every view."""
        return _map(self, lambda tensor: tensor[:, index])

    def views(self, index: Tensor) -> Views:
        """The views of this index, for every row."""
        return _map(self, lambda tensor: tensor[index])

    def equals(self, other: Views) -> bool:
        """Whether the other views show and score the same, in the same order."""
        pairs = [(getattr(self, item.name), getattr(other, item.name)) for item in fields(self)]
        return all(
            torch.equal(one, two) if isinstance(one, Tensor) and isinstance(two, Tensor) else one is two or one == two
            for one, two in pairs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """What a loss is computed from: rows of an optimiser step, their views, and how three policies score them.

    Attributes:
        rollouts: The rows of this call; their `totals` are those of the whole step.
        views: What is scored.
        new: Terms under the policy that is trained, which the gradient goes to.
        old: Terms under the policy that sampled; None where the method declares needs_old = False.
        ref: Terms under the reference policy; None where the method has no use for one.
        advantages: One a row, a row and recorded step, or a row and column.
    """

    rollouts: Rollouts
    views: Views
    new: Float[Tensor, "k b l"]
    old: Float[Tensor, "k b l"] | None
    ref: Float[Tensor, "k b l"] | None
    advantages: Float[Tensor, " b"] | Float[Tensor, "b s"] | Float[Tensor, "b l"]

    @property
    def term_advantages(self) -> Float[Tensor, "k b l"]:
        """Advantages in the shape of the terms: of the row, of the recorded step that the view names, or of the column.

        Raises ConfigError where they have another shape.
        """
        given, views, recorded = self.advantages, self.views, self.rollouts.trajectory
        if given.dim() == 1:
            return given[None, :, None].expand_as(views.weight)
        num_rows, second = views.score.shape[1:]
        what = "column"
        if views.step is not None:
            assert recorded is not None, "views name steps, and none are recorded"
            second, what = recorded.num_steps, "recorded step"
        if given.shape != (num_rows, second):
            raise ConfigError(
                f"advantages of shape {tuple(given.shape)} were given; with these views it should be {(num_rows,)}, "
                f"one a row, or {(num_rows, second)}, one a row and {what}. Return one of these from `advantages`."
            )
        by_view = given[None] if views.step is None else given.gather(1, views.step.T).T[..., None]
        return by_view.expand_as(views.weight)

    def rows(self, index: Tensor) -> LossInputs:
        """The rows of this index."""
        return LossInputs(
            rollouts=self.rollouts.rows(index),
            views=self.views.rows(index),
            new=self.new[:, index],
            old=None if self.old is None else self.old[:, index],
            ref=None if self.ref is None else self.ref[:, index],
            advantages=self.advantages[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A scalar to go backward from, and plain-number metrics by documented name."""

    value: Float[Tensor, ""]
    metrics: dict[str, float]
