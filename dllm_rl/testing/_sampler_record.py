"""The record of a sampler: its states lead to the text, and its log-probabilities are those of what was drawn.

Legend: b rows, l canvas, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dllm_rl.records.trajectory import Trajectory
from dllm_rl.records.types import Completions, Prompts, Rollouts
from dllm_rl.testing._sampler_rows import LARGEST_DEVIATION, ROWS, SamplerCase, ending
from dllm_rl.testing.policies import prompts_of

# In nats, between a recorded log-probability and its replay; rounding makes some 4e-6.
LARGEST_GAP = 1e-5
LARGEST_ENTROPY_GAP = 1e-4
LARGEST_GAP_UNDER_GRAMMAR = 1e-4
NUM_REPLAYED = 3
ROUNDING = 1e-6


def states_lead_to_the_text(case: SamplerCase) -> None:
    """The last recorded state is the completion up to its EOS; each token is in all states after its commit step."""
    out = case.kept()
    trajectory = out.trajectory
    if trajectory.canvases is None:
        return
    last = trajectory.canvases[:, -1]
    assert torch.equal(case.policy.canvas.close(last), out.ids), "the last state is not the completion"
    assert trajectory.canvases.shape[1] == trajectory.num_steps + 1, "one state a step, and the first, are missing"
    if trajectory.time is not None:
        return
    for step in range(trajectory.num_steps):
        fixed = (trajectory.commit_step >= 0) & (trajectory.commit_step <= step)
        assert (trajectory.canvases[:, step + 1] == last)[fixed].all(), f"a token changed after its commit ({step})"


def done_rows_stay(case: SamplerCase) -> None:
    """Once no mask stands before a row's first EOS, the row never changes again (families with a mask)."""
    with ending(case.policy, 0.2):
        canvases = case.draw().trajectory.canvases
    if canvases is None or not case.policy.needs_mask:
        return
    is_open = (canvases == case.policy.process.blank_id) & case.policy.canvas.until_eos(canvases)
    is_done = ~is_open.any(dim=2)
    changed = (canvases[:, 1:] != canvases[:, :-1]).any(dim=2) & is_done[:, :-1]
    assert not changed.any(), f"a finished row changed at step {changed.nonzero()[:, 1].tolist()}"


def replay_is_exact(case: SamplerCase) -> None:
    """Recorded log-probabilities and entropies are the policy's at the recorded states.

    Log-probabilities to 1e-5 (of paths to a millionth more), entropies to 1e-4.
    """
    _check_replay(case, 1.0)


def tempered_replay_is_exact(case: SamplerCase) -> None:
    """At temperature .5 they are those of the distribution at that temperature, which the tokens were drawn from."""
    _check_replay(case, 0.5)


def greedy_replay_is_exact(case: SamplerCase) -> None:
    """At temperature 0 they are those of the distribution at temperature 1: the most likely tokens have none there."""
    _check_replay(case, 0.0)


def grammar_replay_is_exact(case: SamplerCase) -> None:
    """Under the grammar log-probabilities are those that the policy's process replays, which objectives train on.

    At temperature .5, of a few steps a row.
    """
    if not case.takes_grammar or case.sampler().approximation is not None:
        return
    policy, prompts = case.policy, prompts_of(case.policy, (0, 1, 2))
    out = case.draw(prompts=prompts, temperature=0.5, grammar=True)
    record, recorded = out.trajectory, out.trajectory.log_probs
    valid, group_ids = torch.ones(len(out.ids), dtype=torch.bool), torch.zeros(len(out.ids), dtype=torch.long)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=out.as_drawn,
        completion_mask=out.mask,
        rewards=torch.zeros(len(out.ids)),
        group_ids=group_ids,
        valid=valid,
        trajectory=record,
        totals=Rollouts.count_totals(valid, group_ids, out.mask),
        temperature=0.5,
    )
    # A path's log-probability is the sum over all steps.
    num_steps = NUM_REPLAYED if record.time is None else None
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0), num_steps=num_steps)
    with torch.no_grad():
        terms = policy.view_log_probs(rollouts, views)
    is_scored = views.score & (record.commit_step >= 0)
    if record.time is not None:
        terms, is_scored = terms.sum(dim=0, keepdim=True), is_scored.any(dim=0, keepdim=True)
    gaps = (terms - recorded).abs() - ROUNDING * recorded.abs()
    gap = gaps[is_scored].max().item() if is_scored.any() else 0.0
    assert gap < LARGEST_GAP_UNDER_GRAMMAR, f"under the grammar a replay of the record differs by {gap:.2g} nats"


def _check_replay(case: SamplerCase, temperature: float) -> None:
    if case.has_grammar or not case.draws_from_policy:
        return
    out, prompts = case.kept(temperature), prompts_of(case.policy, ROWS)
    replayed, entropy = torch.zeros(out.ids.shape), out.trajectory.entropy.clone()
    for event in events(case.policy, prompts, out, temperature):
        replayed = torch.where(event.where, replayed + event.log_probs, replayed)
        if event.is_plain:
            terms = event.distribution.exp() * event.distribution.clamp(min=-1e4)
            entropy = torch.where(event.where, -terms.sum(-1), entropy)
    recorded = out.trajectory.log_probs
    gaps = (replayed - recorded).abs()
    if out.trajectory.time is not None:
        # Sums over a path, in float32.
        gaps -= ROUNDING * recorded.abs()
    gap = gaps[out.mask].max().item()
    assert gap < LARGEST_GAP, f"at temperature {temperature} a replay of the record differs by {gap:.2g} nats"
    gap = (entropy - out.trajectory.entropy).abs()[out.mask].max().item()
    assert gap < LARGEST_ENTROPY_GAP, (
        f"at temperature {temperature} a recorded entropy differs by {gap:.2g} nats from that of what was drawn from"
    )


def draws_follow_the_distribution(case: SamplerCase) -> None:
    """Check that tokens are drawn from the tempered distribution, by a test on the sum of log p + entropy.

    Given what was written before, log p of a drawn token has mean -entropy and a known variance. The sum over draws,
    divided by the root of the summed variances, is therefore about standard normal. Rules that remask tokens are left
    out: their record keeps only the last draw of a column, and which draw is the last depends on its value.
    """
    if case.has_grammar:
        return
    for temperature in (1.0, 0.5):
        out, prompts = case.kept(temperature), prompts_of(case.policy, ROWS)
        if out.trajectory.is_approximate:
            return
        total, variance = 0.0, 0.0
        for event in events(case.policy, prompts, out, temperature):
            where = event.where & out.mask & event.is_plain
            distribution = event.distribution.double()[where]
            share, surprise = distribution.exp(), distribution.clamp(min=-1e4)
            mean = (share * surprise).sum(-1)
            total += float((event.log_probs.double()[where] - mean).sum())
            variance += float(((share * surprise**2).sum(-1) - mean**2).sum())
        deviation = total / max(variance, 1e-12) ** 0.5
        assert abs(deviation) < LARGEST_DEVIATION, (
            f"at temperature {temperature} the tokens lie {deviation:+.1f} standard deviations from draws of the "
            "distribution that is recorded: they come from another one"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a step drew.

    Attributes:
        where: Positions that were drawn.
        log_probs: Of the tokens.
        distribution: Log-probabilities of all tokens.
        is_plain: Whether the tokens were drawn from this distribution and nothing else.
    """

    where: Bool[Tensor, "b l"]
    log_probs: Float[Tensor, "b l"]
    distribution: Float[Tensor, "b l v"]
    is_plain: bool


@torch.no_grad()
def events(policy: Any, prompts: Prompts, out: Completions, temperature: float) -> Iterator[Event]:
    """The recorded steps one after another, scored by the policy at the temperature; at 0 as it is."""
    trajectory, temperature = out.trajectory, temperature or 1.0
    if trajectory.canvases is None:
        distribution = (policy.logits(prompts, out.ids).cpu() / temperature).log_softmax(-1)
        log_p = distribution.gather(-1, out.ids[..., None])[..., 0]
        yield Event(where=trajectory.commit_step >= 0, log_probs=log_p, distribution=distribution, is_plain=True)
        return
    for step in range(trajectory.num_steps):
        state, after = trajectory.canvases[:, step], trajectory.canvases[:, step + 1]
        order = None if trajectory.order is None else trajectory.order[:, step]
        time = None if trajectory.time is None else trajectory.time[step].expand(len(state))
        logits = policy.logits(prompts, state, time=time, order=order).cpu()
        distribution = (logits / temperature).log_softmax(-1)
        log_p = distribution.gather(-1, after[..., None])[..., 0]
        if trajectory.time is None:
            yield Event(where=trajectory.commit_step == step, log_probs=log_p, distribution=distribution, is_plain=True)
            continue
        assert trajectory.transition is not None
        now, end = trajectory.time[step : step + 2]
        moved = trajectory.transition.log_prob(_reader(distribution), state, after, now, end)
        everywhere = torch.ones_like(after, dtype=torch.bool)
        # The last step of a flow draws every position from the model's distribution.
        yield Event(
            where=everywhere, log_probs=moved, distribution=distribution, is_plain=step + 1 == trajectory.num_steps
        )


def _reader(distribution: Float[Tensor, "b l v"]) -> Callable[[Tensor], Tensor]:
    return lambda tokens: distribution.gather(-1, tokens[..., None]).squeeze(-1)


def record_is_whole(case: SamplerCase) -> None:
    """The events rebuild every canvas (and feed order) that the policy was shown, and close into the completion.

    Rows of the record are the record of the rows. Grammar on and off, where it is an option. A sampler of several
    particles a row (`num_particles`) records the past of one, whose states must be among those shown.
    """
    rows = (0, 1, 2, 4)
    for options in ({}, {"grammar": True}) if case.takes_grammar and not case.has_grammar else ({},):
        shown: dict[int, list[Tensor]] = {row: [] for row in rows}
        with mock.patch.object(case.policy, "logits", _looking(case.policy.logits, shown)):
            sampler = case.sampler(**options)
            out = sampler.generate(case.policy, prompts_of(case.policy, rows), seed=3)
        record = out.trajectory
        assert torch.equal(record.events.text(), out.ids), "the events do not close into the completion"
        for row, states in enumerate(_states_of_rows(record)):
            if getattr(sampler, "num_particles", 1) > 1:
                every = {tuple(state.tolist()) for state in shown[rows[row]]}
                lost = [state for state in states[:-1] if tuple(state.tolist()) not in every]
                assert not lost, "the events give a state that the policy was not shown for any particle of the row"
                continue
            seen = _without_repeats(shown[rows[row]])
            assert len(seen) <= len(states), "the policy was shown a state that the events do not give"
            assert all(map(torch.equal, seen, states)), "the events give another state than the policy was shown"
            assert not seen or len(states) - len(seen) <= 1, "the events give a state that the policy was not shown"
        some = record.rows(torch.tensor([3, 1]))
        assert torch.equal(some.events.text(), out.ids[[3, 1]]), "rows of the record are not the record of the rows"


def _looking(ask: Callable[..., Tensor], shown: dict[int, list[Tensor]]) -> Callable[..., Tensor]:
    """`policy.logits`, keeping the canvas of each row, and its feed order behind it where there is one."""

    def look(prompts: Any, canvas: Tensor, *args: Any, **facts: Any) -> Tensor:
        order = facts.get("order")
        whole = canvas.clone() if order is None else torch.cat([canvas, order], dim=1)
        for row_id, state in zip(prompts.row_ids.tolist(), whole, strict=True):
            shown[row_id].append(state)
        return ask(prompts, canvas, *args, **facts)

    return look


def _states_of_rows(record: Trajectory) -> list[list[Tensor]]:
    """Each row's states before its steps, without repeats, in the form of `_looking`."""
    if record.canvases is None:
        return []
    whole = record.canvases if record.order is None else torch.cat([record.canvases, record.order], dim=2)
    return [_without_repeats(list(states[:end])) for states, end in zip(whole, record.events.end.tolist(), strict=True)]


def _without_repeats(states: list[Tensor]) -> list[Tensor]:
    return [state for index, state in enumerate(states) if not index or not torch.equal(state, states[index - 1])]
