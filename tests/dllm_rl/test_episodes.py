"""Episodes without a browser: order, waves, the outcome of the whole, and one path for all writers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from dllm_rl.environment import Environment
from dllm_rl.episodes import Episode, Reply, Stop, oracle, play, played_again, recorded
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion, join_turns, split_turns
from dllm_rl.records.tasks import (
    ActionResult,
    Control,
    Ending,
    Fault,
    FieldResult,
    GoldField,
    Observation,
    Outcome,
    Task,
)
from dllm_rl.reward import FromFunction, Score
from dllm_rl.session import Session


class Countdown(Episode):
    """Ends after as many turns as the task's site says; the word "lose" loses it."""

    def __init__(self, environment: Counting, task: Task) -> None:
        self.environment, self.task, self.left = environment, task, int(task.site)

    def _page(self) -> Observation:
        return Observation(titles=(f"{self.left} left",), controls=(Control(ref="p1.e1", kind="button", name="On"),))

    async def start(self) -> Reply:
        self.environment.num_open += 1
        self.environment.most_open = max(self.environment.most_open, self.environment.num_open)
        if self.left == 0:
            return Reply(observation=None, outcome=self._outcome("", Fault.ENVIRONMENT, Ending.LOST))
        return Reply(observation=self._page(), outcome=Outcome(task_id=self.task.id))

    async def step(self, plan: str) -> Reply:
        self.left -= 1
        if plan == "lose":
            return Reply(observation=None, outcome=self._outcome(plan, Fault.ENVIRONMENT, Ending.LOST))
        fault = Fault.AGENT if plan == "slip" else Fault.NONE
        if self.left:
            return Reply(observation=self._page(), outcome=self._outcome(plan, fault, None))
        return Reply(observation=None, outcome=self._outcome(plan, fault, Ending.FINISHED))

    async def close(self) -> None:
        self.environment.num_open -= 1

    def _outcome(self, plan: str, fault: Fault, ending: Ending | None) -> Outcome:
        is_done = ending is Ending.FINISHED
        result = FieldResult(name="f", wanted=("x",), server=None, dom=None, is_correct=is_done, is_default=False)
        return Outcome(
            task_id=self.task.id,
            fault=fault,
            fault_reason=plan if fault is not Fault.NONE else "",
            is_submitted=is_done,
            fields=(result,),
            actions=(ActionResult(line=1, text=plan, status="ok", note=f"{self.left} left"),),
            ending=ending,
            seconds={"act": 1.0},
        )


class Counting(Environment):
    is_episodic = True
    num_open = most_open = 0

    def tasks(self, split):
        gold = (GoldField(name="f", kind="text", wanted=("x",)),)
        return [Task(id=f"{split}/{n}", split=split, site=str(n), instruction="", gold=gold) for n in range(6)]

    async def observe(self, task):
        raise NotImplementedError

    async def run(self, task, plan, *, isolation=None, executor=None):
        return await played_again(self.begin(task, None), plan)

    def begin(self, task, modes):
        return Countdown(self, task)

    def gold_turn(self, task, turns, observation):
        return f"turn {len(turns) + 1}"

    @property
    def max_open(self):
        return 4


success = FromFunction(lambda outcome: float(outcome.is_success))


@pytest.fixture
def session():
    with Session(Counting()) as opened:
        yield opened


def test_episodes_of_any_length_are_played_side_by_side_and_returned_in_order(session) -> None:
    rollouts = play(session, success, session.tasks("train"), oracle(session))
    assert [len(rollout.turns) for rollout in rollouts] == [0, 1, 2, 3, 4, 5]
    assert [rollout.reward.value for rollout in rollouts] == [0, 1, 1, 1, 1, 1]
    assert session.environment.most_open == 4 and session.environment.num_open == 0
    third = rollouts[3]
    assert third.plan == "turn 1\n\nturn 2\n\nturn 3"
    assert [turn.observation.title for turn in third.turns] == ["3 left", "2 left", "1 left"]
    assert [action.note for action in third.outcome.actions] == ["2 left", "1 left", "0 left"]
    assert third.outcome.seconds == {"act": 3.0}
    assert third.to_row()["num_turns"] == 3 and third.to_row()["ending"] == "finished"


class Forgetful(Counting):
    """Its episodes end without saying how."""

    def begin(self, task, modes):
        return Mute(self, task)


class Mute(Countdown):
    async def step(self, plan: str) -> Reply:
        reply = await super().step(plan)
        return replace(reply, outcome=replace(reply.outcome, ending=None))


def test_an_episode_that_ends_without_an_ending_is_refused() -> None:
    with Session(Forgetful()) as session, pytest.raises(ConfigError, match="answered with neither a page nor"):
        play(session, success, session.tasks("train")[1:3], oracle(session))


def test_an_episode_that_no_judge_answered_for_is_lost(session) -> None:
    class Silent(FromFunction):
        def score(self, episodes):
            return [Score(fault="no answer") for _ in episodes]

    silent = Silent(success.function)
    first, second = play(session, silent, session.tasks("train")[1:3], recorded([["on"], ["on"]]))
    assert (first.outcome.fault, first.outcome.ending) == (Fault.JUDGE, Ending.FINISHED), "it ended all the same"
    assert second.outcome.ending is None, "it was stopped before it ended"


def test_a_writer_that_cannot_go_on_says_how_the_episode_ends(session) -> None:
    stop = Stop(ending=Ending.TOO_LONG, reason="no room")

    def write(situations):
        return [stop if len(item.turns) == item.row else Completion(plan="on") for item in situations]

    first, second, third = play(session, success, [session.tasks("train")[4]] * 3, write)
    assert [len(item.turns) for item in (first, second, third)] == [0, 1, 2]
    for rollout in (first, second, third):
        outcome = rollout.outcome
        assert (outcome.ending, outcome.fault, outcome.fault_reason) == (Ending.TOO_LONG, Fault.AGENT, "no room")
        assert outcome.is_valid and rollout.reward.value == 0 and rollout.to_row()["ending"] == "too_long"


def test_an_episode_that_is_lost_at_its_start_has_no_turn_and_is_not_valid(session) -> None:
    (rollout,) = play(session, success, session.tasks("train")[:1], oracle(session))
    assert rollout.turns == () and not rollout.outcome.is_valid and rollout.plan == ""


def test_a_recorded_episode_is_played_again_and_ends_where_the_record_ends(session) -> None:
    tasks = session.tasks("train")[3:5]
    (whole,) = play(session, success, tasks[:1], oracle(session))
    assert session.wait_for(session.environment.run(tasks[0], whole.plan)) == whole.outcome
    cut, slipped = play(session, success, tasks, recorded([["turn 1"], ["slip", "on", "lose"]]))
    assert len(cut.turns) == 1 and cut.outcome.ending is None
    assert (slipped.outcome.fault, slipped.outcome.ending) == (Fault.ENVIRONMENT, Ending.LOST)


def test_an_episode_has_the_fault_of_its_first_turn_that_had_one(session) -> None:
    (rollout,) = play(session, success, session.tasks("train")[3:4], recorded([["on", "slip", "on"]]))
    assert (rollout.outcome.fault, rollout.outcome.fault_reason) == (Fault.AGENT, "slip")
    assert rollout.outcome.is_success


def test_an_exception_of_the_writer_leaves_no_episode_open(session) -> None:
    def write(situations):
        raise ValueError("no turn")

    with pytest.raises(ValueError, match="no turn"):
        play(session, success, session.tasks("train"), write)
    assert session.environment.num_open == 0


def test_a_gold_plan_of_an_episode_is_refused(session) -> None:
    with pytest.raises(ConfigError, match="an oracle of turns"):
        session.gold_plan(session.tasks("train")[1])


@drawn(st.lists(st.text(alphabet="ab \n", max_size=12), min_size=1))
def test_turns_written_as_one_text_are_the_same_turns(plans) -> None:
    once = split_turns(join_turns(plans))
    assert len(once) == len(plans) and split_turns(join_turns(once)) == once
    assert all(
        [line for line in before.split("\n") if line.strip()] == [line for line in after.split("\n") if line]
        for before, after in zip(plans, once, strict=True)
    )


def test_completion_is_the_policys_text_and_is_not_changed(session) -> None:
    plan = "turn\n\n  \nother"
    (rollout,) = play(session, success, session.tasks("train")[1:2], lambda _: [Completion(plan=plan)])
    assert rollout.turns[0].completion.plan == plan and split_turns(rollout.plan) == ["turn\nother"]
