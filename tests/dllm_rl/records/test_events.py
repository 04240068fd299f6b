"""The event record gives back what was kept as whole canvases; parts, joins and text keep it; it stays small."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from dllm_rl.records.events import (
    Events,
    Kind,
    UnsortedEvents,
    events_of_states,
    join_events,
    recorded_orders,
    sort_events,
)
from dllm_rl.records.trajectory import Trajectory, join_trajectories

ROWS, LENGTH, STEPS, MASK = 5, 7, 6, 9
DRAWS = (Kind.COMMIT, Kind.EDIT, Kind.JUMP)


def a_random_past(seed: int = 0, *, num_events: int = 90) -> tuple[Events, dict[str, Tensor]]:
    """Events of every kind, some positions several times in one step, beside the arrays that they change one by one."""
    generator = torch.Generator().manual_seed(seed)

    def some(limit: int) -> Tensor:
        return torch.randint(limit, (num_events,), generator=generator)

    initial = torch.full((ROWS, LENGTH), MASK)
    step = (some(STEPS + 1) - 1).sort().values
    row, column, token, kind = some(ROWS), some(LENGTH), some(9), some(len(Kind))
    kind[step < 0] = Kind.FORCED
    log_prob, entropy = -torch.rand(num_events, generator=generator), torch.rand(num_events, generator=generator)
    canvas, commit = initial.clone(), torch.full((ROWS, LENGTH), -1)
    log_probs, entropies = torch.zeros(ROWS, LENGTH), torch.zeros(ROWS, LENGTH)
    states = []
    for now in range(-1, STEPS):
        for event in (step == now).nonzero().flatten().tolist():
            at = int(row[event]), int(column[event])
            is_draw = int(kind[event]) in DRAWS
            canvas[at] = token[event]
            commit[at] = now if is_draw else -1
            log_probs[at] = log_prob[event] if is_draw else 0.0
            entropies[at] = entropy[event] if is_draw else 0.0
        states.append(canvas.clone())
    events = sort_events(
        UnsortedEvents(
            row=row,
            step=step,
            column=column,
            token=token,
            kind=kind,
            log_prob=log_prob,
            entropy=entropy,
        ),
        end=torch.full((ROWS,), STEPS),
        initial=initial,
        length=LENGTH,
    )
    kept = {"canvases": torch.stack(states, 1), "commit": commit, "log_probs": log_probs, "entropy": entropies}
    return events, kept


def trajectory_of(events: Events, **facts: object) -> Trajectory:
    return Trajectory(events=events, num_steps=STEPS, **facts)  # type: ignore[arg-type]


def assert_same(mine: Events, theirs: Events) -> None:
    for item in fields(Events):
        one, other = getattr(mine, item.name), getattr(theirs, item.name)
        if isinstance(one, Tensor):
            assert one.dtype == other.dtype, item.name
            assert torch.equal(one, other), item.name
        else:
            assert one == other, item.name


@pytest.mark.parametrize("seed", range(4))
def test_states_and_final_draws_are_those_of_the_whole_canvases(seed):
    events, kept = a_random_past(seed)
    record = trajectory_of(events)
    assert record.canvases is not None and record.canvases.dtype == torch.long
    assert torch.equal(record.canvases, kept["canvases"])
    assert torch.equal(record.commit_step, kept["commit"])
    assert torch.equal(record.log_probs, kept["log_probs"])
    assert torch.equal(record.entropy, kept["entropy"])
    steps = torch.randint(STEPS + 1, (3, ROWS), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(record.states(steps), kept["canvases"][torch.arange(ROWS), steps])
    rebuilt = events_of_states(kept["canvases"], kept["commit"], kept["log_probs"], kept["entropy"], mask_id=MASK)
    again = trajectory_of(rebuilt)
    assert again.canvases is not None and torch.equal(again.canvases, kept["canvases"])
    assert torch.equal(again.commit_step, kept["commit"])
    assert torch.equal(again.log_probs, kept["log_probs"])


def test_what_comes_after_the_end_closes_the_text_and_is_in_no_state():
    events, kept = a_random_past()
    short = replace(events, end=torch.tensor([STEPS, 2, 0, STEPS, 3], dtype=torch.int32))
    states = trajectory_of(short).canvases
    assert states is not None
    for row, end in enumerate(short.end.tolist()):
        assert torch.equal(states[row, : end + 1], kept["canvases"][row, : end + 1])
        assert (states[row, end:] == kept["canvases"][row, end]).all()
    assert torch.equal(short.text(), kept["canvases"][:, -1])


def test_selecting_and_joining_rows_commute_with_rebuilding():
    (one, kept), (two, other) = a_random_past(1), a_random_past(2)
    for index in (torch.tensor([3, 0, 3]), torch.tensor([True, False, True, False, False]), torch.tensor([-1])):
        chosen = trajectory_of(one).rows(index)
        assert torch.equal(chosen.canvases, kept["canvases"][index])  # type: ignore[arg-type]
        assert torch.equal(chosen.commit_step, kept["commit"][index])
    assert_same(join_events([one.rows(torch.tensor([0, 1])), one.rows(torch.tensor([2, 3, 4]))]), one)
    place = torch.randperm(2 * ROWS, generator=torch.Generator().manual_seed(0))
    joined = join_trajectories([trajectory_of(one), trajectory_of(two)], place)
    canvases = torch.cat([kept["canvases"], other["canvases"]])[place]
    assert joined.canvases is not None and torch.equal(joined.canvases, canvases)
    assert torch.equal(joined.entropy, torch.cat([kept["entropy"], other["entropy"]])[place])
    nobody = trajectory_of(one).rows(torch.tensor([], dtype=torch.long))
    assert nobody.canvases is not None and nobody.canvases.shape == (0, STEPS + 1, LENGTH)


def test_a_shorter_trajectory_stays_at_its_last_state():
    one, kept = a_random_past(1)
    longer = replace(trajectory_of(one), num_steps=STEPS + 3)
    joined = join_trajectories([trajectory_of(one), longer]).canvases
    assert joined is not None and joined.shape[1] == STEPS + 4
    assert torch.equal(joined[:ROWS], joined[ROWS:])
    assert (joined[:, STEPS:] == torch.cat([kept["canvases"][:, -1:]] * 2)).all()


def test_what_was_rebuilt_is_not_sent_along():
    record = trajectory_of(a_random_past()[0])
    before = len(pickle.dumps(record))
    assert record.canvases is not None and record.commit_step.shape == (ROWS, LENGTH)
    assert len(pickle.dumps(record)) == before
    again = pickle.loads(pickle.dumps(record))
    assert torch.equal(again.canvases, record.canvases)


def test_feed_orders_follow_the_groups_that_slots_were_opened_in():
    """Slots 2 and 0 are opened together and finished in steps 0 and 2; slot 1 is opened in step 3 and never filled."""
    column, step = torch.tensor([4, 5, 0, 1, 2]), torch.tensor([0, 0, 0, 2, 3])
    events = sort_events(
        UnsortedEvents(
            row=torch.zeros(5, dtype=torch.long),
            step=step,
            column=column,
            token=column,
            kind=torch.zeros(5, dtype=torch.long),
            log_prob=torch.zeros(5),
            entropy=torch.zeros(5),
        ),
        end=torch.tensor([5]),
        initial=torch.full((1, 6), MASK),
        length=6,
    )
    joined = torch.tensor([[2, 99, 2]])
    orders = recorded_orders(events, joined, torch.arange(6)[:, None], 2)[:, 0].tolist()
    together = [0, 1, 4, 5, 2, 3]
    natural = [0, 1, 2, 3, 4, 5]
    assert orders == [natural, natural, natural, together, together, natural]
