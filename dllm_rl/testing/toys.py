"""Toy policies, one a family, small enough to enumerate, and rollouts that look like those of a real sampler.

Eight ids: PAD, EOS, MASK, FILL and four letters. A toy reads prompt, canvas, time and feed order, so that a wrong view
changes its scores. The block toy has two blocks, of four and of two columns.

Legend: b rows, p prompt, l canvas, k views, s steps, v vocabulary, d width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dllm_rl.events import events_of_states
from dllm_rl.process import ForwardProcess
from dllm_rl.testing.joined import joined_slots
from dllm_rl.trajectory import Trajectory
from dllm_rl.types import Answers, Family, Rollouts, Views

PAD, EOS, MASK, FILL = range(4)
LETTERS = (4, 5, 6, 7)
VOCABULARY = 8
SLOT_SIZE = 2
BLOCK_SIZE = 4
NUM_STEPS = 4


class ToyModel(nn.Module):
    """One layer: tanh(position + mixed canvas + mean prompt + time) times a matrix, which sharpness scales."""

    def __init__(self, length: int, generator: torch.Generator, *, width: int = 8, sharpness: float = 1.0) -> None:
        super().__init__()

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator))

        self.embed = normal(VOCABULARY, width)
        self.position = normal(length, width)
        self.mix = normal(length, length)
        self.time = normal(width)
        self.out = nn.Parameter(normal(width, VOCABULARY).detach() * sharpness)
        self.dropout = nn.Dropout(0.0)

    def forward(
        self,
        prompt_ids: Int[Tensor, "n p"],
        prompt_mask: Bool[Tensor, "n p"],
        canvas: Int[Tensor, "n l"],
        may_read: Bool[Tensor, "n l l"],
        time: Float[Tensor, " n"],
        clean: tuple[Int[Tensor, "n l"], Bool[Tensor, "l l"]] | None = None,
    ) -> Float[Tensor, "n l v"]:
        """Logits of the distribution of each column; may_read[n, i, j] where column i sees what stands in column j.

        clean: another canvas, and which of its columns each column sees (block family).
        """
        prompt = self.embed[prompt_ids] * prompt_mask[..., None]
        prompt = prompt.sum(1, keepdim=True) / prompt_mask.sum(1).clamp(min=1)[:, None, None]
        context = (self.mix * may_read) @ self.embed[canvas]
        if clean is not None:
            context = context + (self.mix * clean[1]) @ self.embed[clean[0]]
        hidden = torch.tanh(self.position + context + prompt + time[:, None, None] * self.time)
        return self.dropout(hidden) @ self.out


class ToyPolicy:
    """A `Policy` over `ToyModel`, with the likelihood terms of its family."""

    def __init__(self, family: Family, *, length: int = 6, seed: int = 0, sharpness: float = 1.0) -> None:
        self.family = family
        self.length = length
        self.tokenizer = None
        generator = torch.Generator().manual_seed(seed)
        self.model = ToyModel(length, generator, sharpness=sharpness)
        has_mask = family in ("masked", "block", "slot")
        self.process = ForwardProcess(
            family=family,
            mask_id=MASK if has_mask else None,
            pad_id=PAD,
            eos_id=EOS,
            vocab_size=VOCABULARY,
            slot_size=SLOT_SIZE,
            block_size=BLOCK_SIZE if family == "block" else None,
            banned_ids=(PAD, MASK),
        )

    def distribution(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l v"]:
        """Log-probabilities of every id at every column of every view; PAD and MASK are impossible."""
        num_views, num_rows, _ = views.tokens.shape
        prompt = rollouts.prompt_ids.expand(num_views, -1, -1) if views.prompt_tokens is None else views.prompt_tokens
        time = torch.zeros(num_views, num_rows) if views.time is None else views.time
        logits = self.model(
            prompt.flatten(0, 1),
            rollouts.prompt_mask.expand_as(prompt).flatten(0, 1),
            views.tokens.flatten(0, 1),
            self._may_read(views).flatten(0, 1),
            time.flatten(),
            self._clean(rollouts, views),
        )
        banned = torch.zeros(VOCABULARY, dtype=torch.bool)
        banned[list(self.process.banned_ids)] = True
        return logits.masked_fill(banned, -torch.inf).log_softmax(-1).unflatten(0, (num_views, num_rows))

    def _clean(self, rollouts: Rollouts, views: Views) -> tuple[Tensor, Tensor] | None:
        """Block family, native reading: the completion, of which each column sees the blocks before its own."""
        if self.family != "block" or views.read != "native":
            return None
        block = torch.arange(self.length) // BLOCK_SIZE
        canvas = rollouts.completion_ids.expand_as(views.tokens).flatten(0, 1)
        return canvas, block[None, :] < block[:, None]

    def view_log_probs(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Unweighted likelihood terms, 0 where not scored."""
        log_p = self.distribution(rollouts, views)
        targets = rollouts.completion_ids if views.targets is None else views.targets
        targets = torch.where(views.score, targets.expand_as(views.tokens), EOS)
        terms = log_p.gather(-1, targets[..., None])[..., 0]
        if self.family == "flow" and views.kind == "elbo":
            same = views.tokens == targets
            terms = (
                torch.where(same, 0.0, terms) + log_p.gather(-1, views.tokens[..., None])[..., 0].exp() - same.float()
            )
        if self.family == "flow" and views.kind == "trajectory":
            terms = self._transition(views, targets, terms)
        return torch.where(views.score, terms, 0.0).float()

    def _transition(self, views: Views, targets: Tensor, log_p: Tensor) -> Tensor:
        assert views.time is not None and views.time_next is not None
        power = self.process.schedule_power
        jump = (1 - (1 - views.time_next**power) / (1 - views.time**power))[..., None]
        stay = torch.where(views.tokens == targets, 1 - jump, torch.zeros_like(jump))
        return (stay + jump * log_p.exp()).log()

    def _may_read(self, views: Views) -> Bool[Tensor, "k b l l"]:
        length = views.tokens.shape[-1]
        shape = (*views.tokens.shape, length)
        lower = torch.ones(length, length, dtype=torch.bool).tril()
        if self.family == "autoregressive" or views.read == "causal_shifted":
            return lower.tril(-1).expand(shape)
        if views.read == "causal":
            return lower.expand(shape)
        if self.family == "block":
            block = torch.arange(length) // BLOCK_SIZE
            return (block[None, :] == block[:, None]).expand(shape)
        if self.family == "slot" and views.order is not None:
            rank = views.order.argsort(-1)
            return rank[..., None, :] <= rank[..., :, None]
        return torch.ones(shape, dtype=torch.bool)


def toy_rollouts(
    policy: ToyPolicy, *, num_groups: int = 3, group_size: int = 4, prompt_length: int = 5, seed: int = 0
) -> Rollouts:
    """Groups of random completions of different lengths, some with FILL, one row lost, with a trajectory of the family.

    Group ids are neither sorted nor contiguous; the completions were not drawn from the policy.
    """
    generator = torch.Generator().manual_seed(seed)
    num_rows, length = num_groups * group_size, policy.length
    ids, mask = _completions(num_rows, length, generator)
    group_ids = (torch.arange(num_groups) * 7 + 3).repeat(group_size)
    valid = torch.ones(num_rows, dtype=torch.bool)
    valid[num_rows // 2] = False
    prompt_lengths = torch.randint(2, prompt_length + 1, (num_rows,), generator=generator)
    prompt_mask = torch.arange(prompt_length) >= (prompt_length - prompt_lengths)[:, None]
    letters = torch.tensor(LETTERS)
    prompt_ids = letters[torch.randint(4, (num_rows, prompt_length), generator=generator)]
    trajectory = _trajectory(policy, ids, mask, generator)
    return Rollouts(
        prompt_ids=torch.where(prompt_mask, prompt_ids, PAD),
        prompt_mask=prompt_mask,
        completion_ids=ids,
        completion_mask=mask,
        rewards=torch.rand(num_rows, generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=trajectory,
        totals=Rollouts.count_totals(valid, group_ids, mask),
        step_rewards=torch.rand(num_rows, trajectory.num_steps, generator=generator),
        answers=_answers(policy, ids, trajectory, generator),
    )


def _completions(num_rows: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Letters and FILL, then EOS, then PAD; the first row runs to the end of the canvas without EOS."""
    allowed = torch.tensor((*LETTERS, FILL))
    ids = allowed[torch.randint(5, (num_rows, length), generator=generator)]
    ends = torch.randint(1, length, (num_rows,), generator=generator)
    ends[0] = length
    column = torch.arange(length)
    ids = torch.where(column < ends[:, None], ids, PAD)
    ids = torch.where(column == ends[:, None], EOS, ids)
    return ids, (ids != PAD) & (ids != FILL)


def _trajectory(policy: ToyPolicy, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Trajectory:
    num_rows, length = ids.shape
    if policy.family == "autoregressive":
        commit = torch.where(ids != PAD, torch.arange(length), -1)
        is_written = commit[:, None] < torch.arange(length + 1)[:, None]
        canvases = torch.where(is_written & (commit >= 0)[:, None], ids[:, None], PAD)
        left_to_right = _record(canvases[:, : int(commit.max()) + 2], commit, MASK)
        return replace(left_to_right, events=replace(left_to_right.events, initial=None))
    if policy.family == "slot":
        num_slots = -(-length // SLOT_SIZE)
        slot_step = torch.rand(num_rows, num_slots, generator=generator).argsort(-1)
        commit = slot_step.repeat_interleave(SLOT_SIZE, -1)[:, :length]
        num_steps = num_slots
    elif policy.family == "block":
        block = torch.arange(length) // BLOCK_SIZE
        commit = NUM_STEPS // 2 * block + torch.randint(NUM_STEPS // 2, (num_rows, length), generator=generator)
        num_steps = NUM_STEPS
    else:
        commit = torch.randint(NUM_STEPS, (num_rows, length), generator=generator)
        num_steps = NUM_STEPS
    step = torch.arange(num_steps + 1)[:, None]
    is_written = commit[:, None, :] < step
    start = torch.full_like(ids, MASK)
    if policy.family == "flow":
        start = torch.tensor((EOS, FILL, *LETTERS))[torch.randint(6, ids.shape, generator=generator)]
    final = torch.where(ids == PAD, FILL, ids)
    canvases = torch.where(is_written, final[:, None], start[:, None])
    record = _record(canvases, commit, policy.process.mask_id)
    time = torch.linspace(0, 1, num_steps + 1) if policy.family == "flow" else None
    record = replace(record, time=time)
    if policy.family != "slot":
        return record
    return replace(record, slot_size=SLOT_SIZE, slot_joined=joined_slots(record.events, SLOT_SIZE))


def _answers(policy: ToyPolicy, ids: Tensor, trajectory: Trajectory, generator: torch.Generator) -> Answers | None:
    """Letters for all that was still open before each step (flow: everywhere), with random confidence.

    Block family: in the first block with anything open, unless the completion ended before it.
    """
    if trajectory.canvases is None:
        return None
    before = trajectory.canvases[:, :-1]
    is_open = before == MASK if trajectory.time is None else torch.ones_like(before, dtype=torch.bool)
    if policy.family == "block":
        block = torch.arange(before.shape[2]) // BLOCK_SIZE
        active = is_open.long().argmax(dim=2, keepdim=True) // BLOCK_SIZE
        is_eos = ids == EOS
        last = torch.where(is_eos.any(1), is_eos.long().argmax(1), ids.shape[1])[:, None, None] // BLOCK_SIZE
        is_open = is_open & (block == active) & (block <= last)
    letters = torch.tensor(LETTERS)[torch.randint(4, before.shape, generator=generator)]
    confidence = 0.1 + 0.8 * torch.rand(before.shape, generator=generator)
    return Answers(ids=torch.where(is_open, letters, before), score=is_open, confidence=confidence * is_open)


def _record(canvases: Int[Tensor, "b s1 l"], commit: Tensor, mask_id: int | None) -> Trajectory:
    zeros = torch.zeros(commit.shape)
    events = events_of_states(canvases, commit, zeros, zeros, mask_id=mask_id)
    return Trajectory(events=events, num_steps=canvases.shape[1] - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyFamily:
    """A toy policy with rollouts to check an objective on."""

    policy: ToyPolicy
    rollouts: Rollouts


def toy(family: Family, *, seed: int = 0) -> ToyFamily:
    """The toy of a family."""
    policy = ToyPolicy(family, seed=seed)
    return ToyFamily(policy=policy, rollouts=toy_rollouts(policy, seed=seed))
