"""Turns written in calls of roles: who is asked and when, what is run, and what is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from dllm_rl import registry
from dllm_rl.episodes import TOO_LONG, Situation, play
from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from dllm_rl.notebook import Notebook
from dllm_rl.records.rollout import Call, Completion, Turn
from dllm_rl.records.tasks import ActionResult, Control, Observation, Outcome, Task
from dllm_rl.repair import Repair
from dllm_rl.reward import FromFunction
from dllm_rl.roles import Roles
from dllm_rl.session import Session
from dllm_rl.training.calls import Team
from dllm_rl.training.speaker import Speaker
from dllm_rl.training.trainer import Trainer
from dllm_rl.training.turns import turn_advantages
from tests.dllm_rl.training.test_turns import Walks, by_length, engine_of, groups_of, stacked, trainer_of

PAGE = Observation(
    titles=("Join",),
    controls=(Control(ref="p1.e1", kind="text", name="Name"), Control(ref="p1.e2", kind="button", name="Send")),
)
TASK = Task(id="t", split="val", site="s", instruction="Name: Ada", gold=())
WORDS = {
    "reflector": "ok",
    "planner": 'fill "Name" "Ada"\nsubmit "Send"',
    "actor": 'fill p1.e1 "Ada"',
    "grounder": "p1.e1",
    "summarizer": "forty two",
}


class Scripted:
    """Says in each role what it was told to, and remembers what it was asked."""

    def __init__(self, max_prompt: int = 400, **words: str) -> None:
        self.words, self.asked = {**WORDS, **words}, []
        self.policy = long_policy("masked", max_prompt=max_prompt)

    def say(self, prompts, texts, *, seed) -> list[Completion]:
        roles = [text.split("\n")[0].removeprefix("role: ") for text in texts]
        self.asked += zip(roles, texts, strict=True)
        asked = zip(roles, texts, strict=True)
        return [Completion(plan=self.words[role], prompt=text, num_tokens=3) for role, text in asked]

    @property
    def roles(self) -> list[str]:
        return [role for role, _ in self.asked]


def long_policy(family: str, *, max_prompt: int = 400) -> Any:
    policy = engine_of(None, family).policy
    return type(policy)(policy.model, policy.tokenizer, replace(policy.facts, max_prompt=max_prompt))


def situation(num_turns: int = 0, *calls: Call) -> Situation:
    done = ActionResult(line=1, text='fill p1.e1 "Eve"', status="ok", note="ok fill p1.e1: holds Eve")
    turn = Turn(
        observation=PAGE,
        completion=Completion(plan='fill p1.e1 "Eve"', calls=calls),
        outcome=Outcome(task_id="t", actions=(done,)),
    )
    return Situation(row=0, task=TASK, turns=(turn,) * num_turns, observation=PAGE)


def written(
    speaker: Any, *, num_turns: int = 1, max_turns: int | None = None, own: Any = None, **switches: bool
) -> Any:
    team = Team(roles=Roles(**switches), own=own or {})
    (said,) = team.write(speaker, Notebook(), [situation(num_turns)], [0], seed=0, max_turns=max_turns)
    return said


def test_roles_are_asked_in_the_published_order_and_the_turn_is_put_together_from_what_they_say() -> None:
    speaker = Scripted()
    said = written(speaker)
    assert speaker.roles == ["reflector", "planner", "grounder", "grounder"]
    assert said.plan == 'fill p1.e1 "Ada"\nsubmit p1.e1'
    assert [call.role for call in said.calls] == speaker.roles and said.num_tokens == 12 and said.sampled is None


def test_there_is_nothing_to_reflect_on_at_the_first_turn() -> None:
    speaker = Scripted()
    written(speaker, num_turns=0)
    assert speaker.roles == ["planner", "grounder", "grounder"]


@pytest.mark.parametrize(
    ("off", "asked", "plan"),
    [
        ({"reflector": False}, ["planner", "grounder", "grounder"], 'fill p1.e1 "Ada"\nsubmit p1.e1'),
        ({"planner": False, "grounder": False}, ["reflector", "actor"], 'fill p1.e1 "Ada"'),
        ({"grounder": False}, ["reflector", "planner"], 'fill "Name" "Ada"\nsubmit "Send"'),
    ],
)
def test_a_role_that_is_switched_off_is_not_asked(off, asked, plan) -> None:
    speaker = Scripted()
    said = written(speaker, **off)
    assert (speaker.roles, said.plan) == (asked, plan)
    reads_feedback = "holds Eve" in dict(speaker.asked).get("planner", "")
    assert reads_feedback is ("reflector" in off)


@pytest.mark.parametrize(
    ("reflection", "summarizer", "asked", "plan"),
    [
        ("done", True, ["reflector", "summarizer"], 'done "forty two"'),
        ("done", False, ["reflector"], "done"),
        ('blocked "login"', True, ["reflector"], "done"),
    ],
)
def test_done_and_blocked_end_the_episode_and_the_summarizer_answers(reflection, summarizer, asked, plan) -> None:
    speaker = Scripted(reflector=reflection)
    said = written(speaker, summarizer=summarizer)
    assert (speaker.roles, said.plan) == (asked, plan)


def test_the_planner_may_stop_and_the_answer_is_the_summarizers() -> None:
    with_it = written(Scripted(planner='note "x"\ndone "my own"'), reflector=False)
    without = written(Scripted(planner='note "x"\ndone "my own"'), reflector=False, summarizer=False)
    assert with_it.plan == 'note "x"\ndone "forty two"' and without.plan == 'note "x"\ndone "my own"'


def test_the_summarizer_is_asked_when_turns_run_out() -> None:
    last, before = Scripted(planner="wait"), Scripted(planner="wait")
    assert written(last, num_turns=2, max_turns=3).plan == 'wait\ndone "forty two"'
    assert written(before, num_turns=1, max_turns=3).plan == "wait"
    assert "summarizer" in last.roles and "summarizer" not in before.roles


def test_what_a_planner_points_to_itself_is_pointed_to_by_the_grounder() -> None:
    assert written(Scripted(planner="click p1.e2", grounder="p1.e1")).plan == "click p1.e1"


def test_a_page_that_does_not_fit_ends_the_episode() -> None:
    assert written(Scripted(max_prompt=20)) is TOO_LONG


def test_a_role_may_have_a_policy_of_its_own_which_is_not_trained() -> None:
    speaker, own = Scripted(), Scripted(grounder="p1.e2")
    said = written(speaker, own={"grounder": own})
    assert speaker.roles == ["reflector", "planner"] and own.roles == ["grounder", "grounder"]
    assert said.plan == 'fill p1.e2 "Ada"\nsubmit p1.e2'
    assert [call.role for call in said.calls if call.is_trained] == ["reflector", "planner"]
    assert len(said.trained) == 2


@pytest.fixture(scope="module")
def session():
    with Session(Walks()) as opened:
        yield opened


def team_engine(session, family: str = "masked", *, own: bool = False, **switches: bool):
    engine = engine_of(session, family)
    helper = Speaker(policy=long_policy(family), sampler=engine.sampler)
    team = Team(roles=Roles(**switches), own={"reflector": helper} if own else {})
    return replace(engine, policy=long_policy(family), team=team)


@pytest.mark.parametrize("family", ["autoregressive", "masked"])
@pytest.mark.parametrize("own", [False, True])
def test_every_call_of_the_trained_policy_is_a_row_with_the_tokens_that_were_sampled(session, family, own) -> None:
    engine = team_engine(session, family, own=own, grounder=False)
    groups = groups_of(engine)
    rollouts: Any = stacked(engine, groups)
    episodes = [rollout for group in groups for rollout in group]
    calls = [
        (number, rollout, call)
        for number, rollout in enumerate(episodes)
        for turn in rollout.turns
        for call in turn.completion.calls
        if call.is_trained
    ]
    assert rollouts.num_rows == len(calls) and {call.role for _, _, call in calls} >= {"planner"}
    turns = [turn for rollout in episodes for turn in rollout.turns]
    assert "reflector" in {call.role for turn in turns for call in turn.completion.calls}
    assert ("reflector" in {call.role for _, _, call in calls}) is not own
    for row, (number, rollout, call) in enumerate(calls):
        read = rollouts.prompt_ids[row][rollouts.prompt_mask[row]].tolist()
        assert read == engine.policy.encode_prompt(call.completion.prompt)
        drawn: Any = call.completion.sampled
        assert torch.equal(rollouts.completion_ids[row], drawn.completions.rows(torch.tensor([drawn.row])).as_drawn[0])
        assert engine.policy.canvas.decode(rollouts.completion_ids[row]) == call.completion.plan
        assert rollouts.rewards[row] == rollout.reward.value and rollouts.episode_ids[row] == number
    objective = registry.build("objective", "grpo", {"advantage": "centred"})
    found = turn_advantages(objective, rollouts)
    for number in rollouts.episode_ids.unique():
        assert found[rollouts.episode_ids == number].unique().numel() == 1


def test_calls_are_drawn_with_noise_of_their_own_and_again_alike(session) -> None:
    engine = team_engine(session, grounder=False)
    first, again = groups_of(engine), groups_of(engine)
    assert [r.plan for g in first for r in g] == [r.plan for g in again for r in g]
    texts = [[call.completion.plan for call in turn.completion.calls] for g in first for r in g for turn in r.turns[1:]]
    assert texts and all(len(set(own)) == len(own) for own in texts)


def test_a_step_of_training_on_roles_moves_the_policy(session, tmp_path) -> None:
    usual = trainer_of(session, "grpo", tmp_path)
    trainer = Trainer(
        engine=team_engine(session, grounder=False),
        objective=usual.objective,
        tasks=usual.tasks,
        config=usual.config,
        run_dir=tmp_path,
    )
    before = torch.cat([weight.detach().flatten() for weight in trainer.policy.model.parameters()])
    trainer.train()
    after = torch.cat([weight.detach().flatten() for weight in trainer.policy.model.parameters()])
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert not torch.equal(before, after) and row["nonfinite_gradients"] == 0
    assert row["rows_updated"] > row["num_rollouts"] and row["nfe"] > 0


REFUSALS: list[tuple[str, dict[str, Any], Callable[[Any], Any], str]] = [
    ("grpo", {}, lambda engine: replace(engine, repair=Repair()), "roles and repair"),
    ("mdpo", {}, lambda engine: engine, "scores unfinished turns"),
    ("grpo", {"step_credit": "gigpo"}, lambda engine: engine, "roles and step_credit"),
]


@pytest.mark.parametrize(("objective", "settings", "changed", "message"), REFUSALS, ids=lambda item: str(item)[:20])
def test_what_is_not_defined_for_calls_is_refused(session, tmp_path, objective, settings, changed, message) -> None:
    usual = trainer_of(session, objective, tmp_path, **settings)
    with pytest.raises(ConfigError, match=message):
        Trainer(
            engine=changed(team_engine(session)),
            objective=usual.objective,
            tasks=usual.tasks,
            config=usual.config,
            run_dir=tmp_path,
        )


def test_a_whole_episode_is_played_in_roles(session) -> None:
    """The page is told apart at each turn, and the reflector reads of the one before."""
    speaker: Any = Scripted(planner='fill "Name" "e"')
    team = Team(roles=Roles())

    def write(situations):
        return team.write(speaker, Notebook(), situations, [7] * len(situations), seed=0, max_turns=None)

    (rollout,) = play(session, FromFunction(by_length), session.tasks("train")[:1], write)
    assert len(rollout.turns) > 1 and rollout.turns[0].completion.plan == 'fill p1.e1 "e"'
    reflected = [text for role, text in speaker.asked if role == "reflector"]
    assert len(reflected) == len(rollout.turns) - 1 and "earlier:" in reflected[0] and "Name0" in reflected[0]
