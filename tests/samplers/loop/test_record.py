"""The event record of the registered samplers: equal to what was kept as whole canvases, complete, and small."""

from __future__ import annotations

import pytest
import torch

from dllm_rl import registry
from dllm_rl.records.events import Kind, events_of_states
from dllm_rl.records.trajectory import retakes
from dllm_rl.testing import PropertyError, check_sampler
from dllm_rl.testing._sampler_rows import SamplerCase
from dllm_rl.testing.policies import prompts_of, random_policy
from dllm_rl.testing.sampler import SAMPLER_PROPERTIES
from samplers.loop.context import Watcher
from samplers.loop.record import Recorder

KIB = 1024
RULES = [
    ("low_confidence", {"num_steps": 9, "block_length": 12}),
    ("threshold", {"threshold": 0.5}),
    ("rcr", {"num_steps": 7}),
    ("remdm", {"num_steps": 20, "eta": 0.4}),
]


class Copies(Watcher):
    """Keeps a copy of the canvas after every step, and stops a row after the first block."""

    def __init__(self, stopped: int | None = None) -> None:
        self.canvases: list[torch.Tensor] = []
        self.stopped = stopped

    def wrote(self, canvas, step):
        assert step == len(self.canvases)
        self.canvases.append(canvas.clone())

    def block_done(self, canvas, start, end):
        is_stopped = torch.zeros(len(canvas), dtype=torch.bool)
        if start == 0 and self.stopped is not None:
            is_stopped[self.stopped] = True
        return is_stopped


def drawn(policy, name, rows=(0, 1, 2), *, watcher=None, **options):
    sampler = registry.get("sampler", name)(**options)
    facts = {} if watcher is None else {"watcher": watcher}
    return sampler.generate(policy, prompts_of(policy, rows), seed=4, **facts)


@pytest.mark.parametrize("grammar", [False, True])
@pytest.mark.parametrize(("name", "options"), RULES)
def test_states_are_the_canvases_after_every_step(tiny_policies, name, options, grammar):
    copies, policy = Copies(), tiny_policies["masked"]
    out = drawn(policy, name, watcher=copies, grammar=grammar, **options)
    states = out.trajectory.canvases
    assert torch.equal(states[:, 1:], torch.stack(copies.canvases, 1))
    is_forced = states[:, 0] != policy.mask_id
    assert is_forced.any() == grammar
    assert torch.equal(out.trajectory.events.text(), out.ids)
    rebuilt = events_of_states(
        states,
        out.trajectory.commit_step,
        out.trajectory.log_probs,
        out.trajectory.entropy,
        mask_id=policy.mask_id,
    )
    steps = torch.arange(states.shape[1])[:, None].expand(-1, 3)
    assert torch.equal(rebuilt.states(steps).transpose(0, 1), states)
    for mine, theirs in zip(rebuilt.final_draws(), out.trajectory.events.final_draws(), strict=True):
        assert torch.equal(mine, theirs)


def test_what_a_stopped_row_leaves_empty_is_recorded_too(tiny_policies):
    copies, policy = Copies(stopped=1), tiny_policies["masked"]
    out = drawn(policy, "low_confidence", watcher=copies, num_steps=36, block_length=12)
    events = out.trajectory.events
    assert torch.equal(out.trajectory.canvases[:, 1:], torch.stack(copies.canvases, 1))
    assert torch.equal(events.text(), out.ids)
    own = events.rows(torch.tensor([1]))
    is_fill = own.kind == Kind.EOS_FILL
    assert own.column[is_fill].tolist() == list(range(12, 36))
    assert (own.token[is_fill] == policy.canvas.pad_id).all()
    assert (own.step[is_fill] == 12).all() and out.trajectory.num_steps > 13


@pytest.mark.parametrize(("name", "options"), RULES[2:])
def test_what_is_masked_again_is_an_event(tiny_policies, name, options):
    """One event a changed position and step; what is drawn and taken back within a step changes none."""
    policy = tiny_policies["masked"]
    out = drawn(policy, name, **options)
    events, states = out.trajectory.events, out.trajectory.canvases
    for step in range(out.trajectory.num_steps):
        before, after = states[:, step].flatten(), states[:, step + 1].flatten()
        now = events.step == step
        is_drawn, is_taken = now & (events.kind == Kind.COMMIT), now & (events.kind == Kind.REMASK)
        written, masked = (before != after) & (after != policy.mask_id), (before != after) & (after == policy.mask_id)
        assert torch.equal(events.place[is_drawn].sort().values, written.nonzero().flatten())
        assert torch.equal(events.place[is_taken].sort().values, masked.nonzero().flatten())
    is_taken = events.kind == Kind.REMASK
    assert is_taken.any() and (events.token[is_taken] == policy.mask_id).all()
    assert (events.log_prob[is_taken] == 0).all()
    by_states = ((states[:, :-1] != policy.mask_id) & (states[:, 1:] == policy.mask_id)).any(dim=1)
    assert torch.equal(retakes(out), by_states)


def test_a_plan_of_128_columns_takes_less_than_4_kib():
    """One token a step, the first canvas included. Whole canvases would be 129 KiB a plan.

    Padding over tokens that were drawn behind EOS comes on top, 21 bytes each.
    """
    policy = random_policy("masked", canvas_length=128)
    out = drawn(policy, "low_confidence", num_steps=128)
    events = out.trajectory.events
    num_draws = (events.kind == Kind.COMMIT).sum()
    num_fills = (events.kind == Kind.EOS_FILL).sum()
    assert num_draws == 3 * 128 and len(events.step) == num_draws + num_fills
    assert events.num_bytes - 21 * num_fills <= 3 * 3.2 * KIB
    assert events.num_bytes <= 3 * 5.8 * KIB
    assert out.trajectory.canvases.nbytes == 3 * 129 * KIB


def test_flow_events_are_the_jumps_and_the_last_step(tiny_policies):
    out = drawn(tiny_policies["flow"], "flow_exact", num_steps=9)
    events, states = out.trajectory.events, out.trajectory.canvases
    jumps = (states[:, 1:-1] != states[:, :-2]).sum()
    assert len(events.step) == jumps + 3 * 36 + (events.kind == Kind.EOS_FILL).sum()
    assert (out.trajectory.commit_step == 8).all()


def test_the_public_suite_finds_what_a_sampler_does_not_record(tiny_policies, monkeypatch):
    """Forced tokens that are missing show in the record alone: a plain replay does not score them."""
    write_at = Recorder.write_at

    def forgetful(self, row, column, step, tokens, kind):
        if kind != Kind.FORCED:
            write_at(self, row, column, step, tokens, kind)

    monkeypatch.setattr(Recorder, "write_at", forgetful)
    sampler = registry.get("sampler", "low_confidence")
    case = SamplerCase(sampler_class=sampler, policy=tiny_policies["block"], options={"num_steps": 12})
    SAMPLER_PROPERTIES["replay_is_exact"](case)
    with pytest.raises(AssertionError):
        SAMPLER_PROPERTIES["record_is_whole"](case)
    with pytest.raises(PropertyError, match=r"record_is_whole|grammar_replay_is_exact"):
        check_sampler(sampler, policies=tiny_policies, num_steps=12)
