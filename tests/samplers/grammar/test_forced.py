"""Under the grammar, tokens that must stand somewhere cost no forward, are no draws, and change nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from dllm_rl import registry
from dllm_rl.likelihood.constraint import START
from dllm_rl.records.tasks import Control, Observation
from dllm_rl.records.trajectory import frames
from dllm_rl.records.types import Rollouts
from dllm_rl.testing import check_sampler
from dllm_rl.testing.policies import prompts_of, random_policy
from dllm_rl.training.metrics import masks_left
from samplers.grammar.compile import constraint_of
from samplers.loop.record import ForcedTokens
from samplers.loop.sampling import TOKEN, pick, uniform


def draw(policy, name, rows: Sequence[int] = range(6), *, seed=3, temperature=1.0, **options: Any):
    sampler = registry.get("sampler", name)(temperature=temperature, grammar=True, **options)
    return sampler.generate(policy, prompts_of(policy, rows), seed=seed)


def plain_ar(policy, rows, temperature, seed):
    """One full forward a column and nothing forced."""
    prompts = prompts_of(policy, rows)
    constraint, canvas = constraint_of(policy, prompts), policy.empty_canvas(len(prompts.ids))
    beta, state = constraint.unwritten(), torch.full((len(canvas),), START)
    log_probs = torch.zeros(canvas.shape)
    for column in range(canvas.shape[1]):
        # PAD, which the family never writes, is all that the grammar allows behind EOS.
        is_going = (canvas[:, :column] != policy.canvas.eos_id).all(dim=1)
        logits = policy.logits(prompts, canvas, columns=torch.tensor([column]))[:, 0]
        law = logits.masked_fill(~constraint.allowed(state, column, beta), -torch.inf)
        noise = uniform(seed, prompts.row_ids, torch.tensor([column]), column, TOKEN)
        token, log_prob = (part[:, 0] for part in pick(law[:, None], temperature, noise))
        canvas[:, column] = torch.where(is_going, token, policy.canvas.pad_id)
        log_probs[:, column] = torch.where(is_going, log_prob, 0.0)
        state = constraint.next_states(state, canvas[:, column])
    return canvas, log_probs


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_left_to_right_forcing_changes_no_token(tiny_policies, temperature):
    policy, rows = tiny_policies["autoregressive"], range(6)
    out = draw(policy, "ar", rows, temperature=temperature)
    canvas, log_probs = plain_ar(policy, rows, temperature, seed=3)
    assert torch.equal(out.ids, policy.canvas.close(canvas))
    torch.testing.assert_close(out.trajectory.log_probs, log_probs, atol=2e-5, rtol=1e-5)
    is_forced = out.trajectory.commit_step < 0
    assert (out.trajectory.log_probs[is_forced] == 0).all()
    assert (is_forced & policy.canvas.visible(out.ids)).any() and not (is_forced & out.mask).any()
    drawn = ~is_forced
    assert torch.equal(out.trajectory.commit_step[drawn], torch.arange(36).expand_as(is_forced)[drawn])


def test_left_to_right_a_draw_is_a_forward_and_rows_do_not_wait(tiny_policies):
    policy = tiny_policies["autoregressive"]
    out = draw(policy, "ar", range(6))
    alone = [draw(policy, "ar", [row]).nfe for row in range(6)]
    assert alone == (out.trajectory.commit_step >= 0).sum(dim=1).tolist()
    assert out.nfe == max(alone)
    unforced = (out.ids != policy.canvas.pad_id).sum(dim=1)
    assert out.nfe < unforced.max() / 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_slots_take_fewer_forwards_than_without_forcing(tiny_policies, monkeypatch, temperature):
    policy = tiny_policies["slot"]
    options: dict[str, Any] = {"slot_threshold": 1.0, "token_threshold": 1.0}
    forced = draw(policy, "slots", temperature=temperature, **options)
    with monkeypatch.context() as patch:
        patch.setattr(ForcedTokens, "write", lambda self, rows, canvas, is_masked, step: None)
        unforced = draw(policy, "slots", temperature=temperature, **options)
    assert forced.nfe < unforced.nfe / 2
    assert forced.token_forwards < unforced.token_forwards / 2


def test_every_slot_forward_draws_and_forced_slots_are_fed_first(tiny_policies):
    policy = tiny_policies["slot"]
    size, num_forced = policy.facts.slot_size, 0
    for row in range(3):
        out = draw(policy, "slots", [row], slot_threshold=1.0, token_threshold=1.0)
        record, steps = out.trajectory, out.trajectory.commit_step[0]
        # The prompt is read by a forward of its own.
        assert out.nfe == steps[steps >= 0].unique().numel() + 1
        is_forced = (steps < 0).unflatten(0, (-1, size)).all(dim=1)
        for canvas, order in zip(record.canvases[0, :-1], record.order[0, :-1], strict=True):
            masked = (canvas == policy.mask_id).unflatten(0, (-1, size))
            fed = (order[::size] // size).tolist()
            full = [slot for slot in fed if is_forced[slot] and not masked[slot].any()]
            num_forced += len(full)
            untouched = [place for place, slot in enumerate(fed) if masked[slot].all()]
            assert all(fed.index(slot) < min(untouched, default=len(fed)) for slot in full)
    assert num_forced


def test_padding_is_never_shown_to_the_slot_model(tiny_policies):
    policy = tiny_policies["slot"]
    out = draw(policy, "slots")
    ended = (out.trajectory.canvases == policy.canvas.eos_id).cumsum(dim=2) > 0
    behind = ended & (out.trajectory.canvases != policy.canvas.eos_id)
    drawn = (out.trajectory.commit_step >= 0)[:, None].expand_as(behind)
    assert behind.any()
    assert (out.trajectory.canvases[behind & ~drawn] == policy.mask_id).all()


BUTTON = Observation(titles=("Go",), controls=(Control(ref="p1.e1", kind="button", name="Send"),))


@pytest.mark.parametrize(
    ("family", "name"), [("autoregressive", "ar"), ("slot", "slots"), ("masked", "low_confidence")]
)
def test_a_plan_without_a_choice_takes_no_forward(tiny_policies, family, name):
    tiny = tiny_policies[family]
    # Two lines: one that submits, and EOS.
    policy = type(tiny)(tiny.model, tiny.tokenizer, replace(tiny.facts, canvas_length=16))
    prompts = replace(prompts_of(policy, range(3)), pages=(BUTTON,) * 3)
    out = registry.get("sampler", name)(grammar=True).generate(policy, prompts, seed=0)
    assert [policy.canvas.decode(ids) for ids in out.ids] == ["submit p1.e1"] * 3
    assert (out.nfe, out.token_forwards) == (0, 0)
    rollouts = rollouts_of(prompts, out)
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
    assert not views.score.any()
    assert not policy.view_log_probs(rollouts, views).any()


def rollouts_of(prompts, out):
    groups, valid = torch.zeros(len(out.ids), dtype=torch.long), torch.ones(len(out.ids), dtype=torch.bool)
    return Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=out.as_drawn,
        completion_mask=out.mask,
        rewards=torch.zeros(len(out.ids)),
        group_ids=groups,
        valid=valid,
        trajectory=out.trajectory,
        totals=Rollouts.count_totals(valid, groups, out.mask),
    )


def test_the_exact_view_scores_draws_only(tiny_policies):
    policy = tiny_policies["autoregressive"]
    prompts, out = prompts_of(policy, range(6)), draw(policy, "ar")
    rollouts = rollouts_of(prompts, out)
    views = policy.process.exact(rollouts)
    assert torch.equal(views.score[0], out.trajectory.commit_step >= 0)
    with torch.no_grad():
        terms = policy.view_log_probs(rollouts, views)[0]
    torch.testing.assert_close(terms.sum(1), (out.trajectory.log_probs * out.mask).sum(1), atol=5e-5, rtol=1e-5)


def test_forced_tokens_are_no_masks_left(tiny_policies):
    policy = tiny_policies["autoregressive"]
    rollouts = rollouts_of(prompts_of(policy, range(6)), draw(policy, "ar"))
    assert masks_left(rollouts, policy.canvas) == 0
    unwritten = torch.full_like(rollouts.completion_ids, policy.canvas.newline_ids[0])
    assert masks_left(replace(rollouts, completion_ids=unwritten), policy.canvas) > 0


def test_the_film_shows_forced_tokens_with_the_draw_before_them(tiny_policies):
    policy = tiny_policies["autoregressive"]
    out = draw(policy, "ar", range(3))
    shown = frames(out, policy.canvas.pad_id)
    assert torch.equal(shown[:, -1], out.ids)
    gone_back = (shown[:, :-1] != policy.canvas.pad_id) & (shown[:, 1:] != shown[:, :-1])
    assert not gone_back.any()


@pytest.mark.parametrize(("family", "name"), [("autoregressive", "ar"), ("slot", "slots")])
def test_the_public_suite_holds_under_the_grammar(family, name):
    check_sampler(registry.get("sampler", name), policies={family: random_policy(family, seed=4)}, grammar=True)
