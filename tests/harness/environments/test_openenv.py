"""OpenEnv in both directions: sessions that share nothing, servers of others as environments, and TRL's trainer."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from websockets.sync.client import ClientConnection, connect

from dllm_rl import registry
from dllm_rl.environment import Environment
from dllm_rl.episodes import Modes, play, recorded
from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import Evidence
from dllm_rl.records.rollout import join_turns, split_turns
from dllm_rl.records.tasks import Ending, Fault, Outcome, Task
from dllm_rl.session import Session
from harness.environments import OpenEnvEnvironment, OpenEnvSettings, SiteEnvironment, SiteSettings
from harness.environments.openenv import OpenEnvError, OpenEnvServer, environment
from harness.environments.openenv.client import Step
from tests.experiments.cli.test_cli import said

OWN = Path(__file__).parent / "own_site"


@contextmanager
def served(environment: Environment, reward: str = "shaped", **options: Any) -> Iterator[str]:
    """An environment behind a server in a thread of its own; its address."""
    server = OpenEnvServer(environment, registry.build("reward", reward), name="forms", **options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(60)
        yield server.base_url
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@contextmanager
def session(address: str) -> Iterator[ClientConnection]:
    with connect(f"{address.replace('http', 'ws')}/ws", proxy=None) as socket:
        yield socket


def ask(socket: ClientConnection, kind: str, **data: Any) -> dict[str, Any]:
    socket.send(json.dumps({"type": kind, "data": data}))
    return json.loads(socket.recv(60))


def gold(environment: Environment, split: str, index: int) -> str:
    task = environment.tasks(split)[index]
    plan = environment.gold_plan(task, asyncio.run(environment.observe(task)))
    assert plan is not None
    return plan


def test_sessions_are_episodes_of_their_own_and_tell_no_gold() -> None:
    toy = registry.build("environment", "toy_copy")
    with served(toy, max_sessions=2) as address, session(address) as one, session(address) as two:
        first = ask(one, "reset", split="val", index=0)["data"]
        other = ask(two, "reset", split="val", index=1)["data"]
        assert first["observation"]["text"].startswith(f"task: {toy.tasks('val')[0].instruction}")
        assert first["observation"]["text"] != other["observation"]["text"]
        assert (first["reward"], first["done"]) == (None, False) and "wanted" not in json.dumps(first)
        wrong = ask(one, "step", plan=gold(toy, "val", 1))["data"]
        right = ask(two, "step", plan=gold(toy, "val", 1))["data"]
        assert (right["reward"], right["done"], right["observation"]["is_success"]) == (1.0, True, True)
        assert (wrong["done"], wrong["observation"]["is_success"]) == (True, False) and wrong["reward"] < 1
        state = ask(two, "state")["data"]
        assert (state["step_count"], state["task"]) == (1, toy.tasks("val")[1].id)
        with session(address) as third:
            assert json.loads(third.recv(10))["data"]["code"] == "CAPACITY_REACHED"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "INVALID_JSON"),
        ("[" * 100_000, "INVALID_JSON"),
        ('{"type": "step", "data": []}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"plan": 3}}', "VALIDATION_ERROR"),
        ('{"type": "step", "data": {"plan": ""}}', "EXECUTION_ERROR"),
        ('{"type": "dance"}', "UNKNOWN_TYPE"),
        ('{"type": "reset", "data": {"index": 100000}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"split": "none"}}', "VALIDATION_ERROR"),
        ('{"type": "reset", "data": {"seed": [1]}}', "VALIDATION_ERROR"),
    ],
)
def test_what_a_client_does_wrong_is_told_and_the_session_goes_on(message: str, code: str) -> None:
    with served(registry.build("environment", "toy_sort")) as address, session(address) as socket:
        socket.send(message)
        assert json.loads(socket.recv(10))["data"]["code"] == code
        assert ask(socket, "reset", seed=3)["type"] == "observation"


def test_a_server_of_ours_is_an_environment_of_ours() -> None:
    toy = registry.build("environment", "toy_sort")
    with served(toy) as address:
        environment = OpenEnvEnvironment(OpenEnvSettings(url=address, counts={"val": 3}))
        with Session(environment) as opened:
            tasks = opened.tasks("val")
            assert len(tasks) == 3
            plans = [gold(toy, "val", at) for at in range(2)]
            with opened.episodes(tasks[:2], Modes()) as episodes:
                pages = [reply.observation for reply in episodes.start()]
                assert pages[0] is not None and toy.tasks("val")[0].instruction in pages[0].instruction
                ends = episodes.step({0: plans[0], 1: plans[0]})
            assert [ends[at].outcome.is_success for at in (0, 1)] == [True, False]
    with pytest.raises(ConfigError, match="nothing answers at"):
        Session(OpenEnvEnvironment(OpenEnvSettings(url=address))).tasks("val")


def test_a_server_of_others_is_played_in_several_turns_and_what_it_refuses_is_the_plans() -> None:
    command = f"{sys.executable} {OWN / 'guess.py'} {{port}}"
    with Session(OpenEnvEnvironment(OpenEnvSettings(start=command, max_turns=4))) as opened:
        task = opened.tasks("train")[0]
        with opened.episodes([task] * 2, Modes()) as episodes:
            assert [reply.observation.instruction for reply in episodes.start()] == ["Guess a number from 1 to 9."] * 2
            for guess in range(1, 5):
                reply = episodes.step({0: str(guess)})[0]
                if reply.observation is None:
                    break
                assert [item.text for item in reply.observation.passages] == ["Higher."]
            refused = episodes.step({1: "nine"})[1]
        assert reply.observation is None and reply.outcome.ending in ("finished", "turns")
        assert (refused.outcome.fault, refused.outcome.fault_reason) == (Fault.AGENT, "not a number")
        solved = [opened.run_many([(task, str(number))])[0].is_success for number in range(1, 10)]
        assert sum(solved) == 1


def test_what_a_server_pays_is_passed_on_where_the_reward_says_so() -> None:
    command = f"{sys.executable} {OWN / 'guess.py'} {{port}}"
    options = {"dense": True}
    with Session(OpenEnvEnvironment(OpenEnvSettings(start=command, max_turns=1, options=options))) as opened:
        task = opened.tasks("train")[0]
        outcomes = opened.run_many([(task, str(guess)) for guess in range(1, 10)])
    number = [item.is_success for item in outcomes].index(True) + 1
    near = [1 - abs(guess - number) / 8 for guess in range(1, 10)]
    paid = {name: registry.build("reward", name) for name in ("outcome", "earned")}
    assert [paid["outcome"](item) for item in outcomes] == [float(guess == number) for guess in range(1, 10)]
    assert [paid["earned"](item) for item in outcomes] == pytest.approx(near)
    upper = registry.build("reward", "earned", {"least": 0.5, "most": 0.75})
    assert [upper(item) for item in outcomes] == pytest.approx([min(1, max(0, 4 * item - 2)) for item in near])
    with pytest.raises(ConfigError, match="expected least below most"):
        registry.build("reward", "earned", {"least": 1})


def test_what_a_served_environment_loses_is_tried_again_and_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = registry.build("environment", "toy_sort")
    losses, run = [True], toy.run

    async def sometimes(task: Task, plan: str, **modes: Any) -> Outcome:
        lost = Outcome(task_id=task.id, fault=Fault.ENVIRONMENT, fault_reason="the browser is gone")
        return lost if losses and losses.pop() else await run(task, plan, **modes)

    monkeypatch.setattr(toy, "run", sometimes)
    with served(toy) as address, Session(OpenEnvEnvironment(OpenEnvSettings(url=address))) as opened:
        task, plan = opened.tasks("val")[0], gold(toy, "val", 0)
        again = opened.run_many([(task, plan)])[0]
        assert (again.is_success, again.num_attempts) == (True, 2)
        losses[:] = [True] * 3
        lost = opened.run_many([(task, plan)])[0]
    assert (lost.fault, lost.ending) == (Fault.ENVIRONMENT, Ending.LOST)
    assert lost.fault_reason == "the server lost the episode: the browser is gone"


def test_an_episode_that_is_cut_short_is_paid_what_it_earned() -> None:
    """By the trainer's horizon, by a replay that ends, and by a text that the server refuses."""
    command = f"{sys.executable} {OWN / 'guess.py'} {{port}}"
    earned = registry.build("reward", "earned", {"most": 3.0})
    with Session(OpenEnvEnvironment(OpenEnvSettings(start=command, options={"dense": True}))) as opened:
        task = opened.tasks("train")[0]
        # Two numbers that are not the one looked for, and what each of them earns.
        near = {str(guess): earned(opened.run_many([(task, str(guess))])[0]) for guess in range(1, 10)}
        wrong = sorted(near, key=near.__getitem__)[:2]
        turns = [[*wrong, "nine"], wrong]
        cut, stopped = (
            play(opened, earned, [task] * 2, recorded(turns), max_turns=most) for most in (2, None)
        )  # fmt: skip
    wanted = pytest.approx(near[wrong[0]] + near[wrong[1]])
    assert wanted.expected > 0
    assert [item.reward.value for item in (*cut, *stopped)] == [wanted] * 4
    assert [item.outcome.is_success for item in (*cut, *stopped)] == [False] * 4
    refused = stopped[0].outcome
    assert (refused.fault, refused.actions[-1].status, refused.actions[-1].note) == (
        Fault.AGENT,
        "failed",
        "not a number",
    )


def test_a_reward_without_the_truth_reads_neither_the_texts_nor_what_they_earned() -> None:
    command = f"{sys.executable} {OWN / 'guess.py'} {{port}}"
    with Session(OpenEnvEnvironment(OpenEnvSettings(start=command, max_turns=2))) as opened:
        task = opened.tasks("train")[0]
        (rollout,) = play(opened, registry.build("reward", "outcome"), [task], recorded([["1", "2"]]))
    seen = Evidence.of(rollout.task, rollout.turns, rollout.outcome).without_truth()
    assert [action.note[:6] for action in rollout.outcome.actions] == ["reward"] * len(rollout.turns)
    assert seen.actions == () and "reward" not in repr(seen)
    assert seen.turns[0].observation.instruction == "Guess a number from 1 to 9."


@pytest.mark.browser
def test_a_site_of_ones_own_is_served(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    form = "<form method=post><label>Name <input name=name></label><button>Send</button></form>"
    (tmp_path / "site" / "index.html").write_text(f"<!doctype html><title>Join</title><h1>Join</h1>{form}")
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(f'{{"values": {{"Name": "{name}"}}, "split": "test"}}\n' for name in ("Ann", "Bo")))
    site = SiteEnvironment(SiteSettings(folder=tmp_path / "site", tasks=file, executor="fast", isolation="page"))
    with served(site) as address, session(address) as one, session(address) as two:
        pages = [ask(socket, "reset", split="test", index=at)["data"] for at, socket in enumerate((one, two))]
        assert [page["observation"]["text"].splitlines()[0] for page in pages] == ["task: Name: Ann", "task: Name: Bo"]
        told = [ask(socket, "step", plan='fill p1.e1 "Bo"\nsubmit p1.e2')["data"] for socket in (one, two)]
    assert [item["observation"]["is_success"] for item in told] == [False, True]
    assert told[1]["reward"] == 1.0 and told[1]["observation"]["notes"] == ["ok fill p1.e1", "submitted"]


def test_the_package_and_we_speak_with_each_other() -> None:
    pytest.importorskip("openenv", reason="the package openenv is not installed; it takes a quarter of a gigabyte")
    from openenv.core import GenericEnvClient

    toy = registry.build("environment", "toy_sort")
    with served(toy) as address, GenericEnvClient(base_url=address).sync() as client:
        page = client.reset(split="val", index=0)
        assert toy.tasks("val")[0].instruction in page.observation["text"]
        end = client.step({"plan": gold(toy, "val", 0)})
        assert (end.reward, end.done, client.state()["step_count"]) == (1.0, True, 1)
    command = f"{sys.executable} {OWN / 'echo.py'} {{port}}"
    with Session(OpenEnvEnvironment(OpenEnvSettings(start=command, observation="echoed"))) as opened:
        outcomes = opened.run_many([(opened.tasks("test")[0], text) for text in ("please", "no")])
    assert [item.is_success for item in outcomes] == [True, False]


@pytest.mark.soak
def test_a_server_of_others_is_trained_on_and_reported(tmp_path: Path, monkeypatch, capsys) -> None:
    options = {
        "start": f"{sys.executable} {OWN / 'guess.py'} {{port}}",
        "max_turns": 2,
        "counts": {"train": 8, "val": 4},
    }
    environment = json.dumps({"name": "openenv", "options": options})
    steps = ("train.steps=2", "train.prompts_per_step=2", "train.group_size=2", "evaluation.split=val")
    monkeypatch.chdir(tmp_path)
    words = ("train", "toy_sort", "masked", "grpo", f"environment={environment}", *steps, "evaluation.max_tasks=4")
    code, _, errors = said(words, monkeypatch, capsys)
    assert code == 0, errors
    (rollouts,) = (tmp_path / "runs" / "masked-grpo").glob("cells/*/seed0/rollouts.jsonl")
    rows = [json.loads(line) for line in rollouts.read_text().splitlines()]
    assert len(rows) == 8 and all(row["fault"] != "environment" for row in rows)


@pytest.mark.slow
def test_trl_trains_on_what_we_serve(tmp_path: Path) -> None:
    """In a process of its own, since what its trainer sets holds for all that comes after it."""
    pytest.importorskip("trl")
    with served(registry.build("environment", "toy_sort")) as address:
        command = [sys.executable, OWN / "trl_client.py", address, tmp_path]
        found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout.splitlines()[-1])
    assert len(told["rewards"]) == 3 and any(told["rewards"])
    assert told["has_learnt"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "expected one of url and start"),
        ({"url": "http://127.0.0.1:1", "start": "x"}, "expected one of url and start"),
        ({"start": "x", "allow": ("a",)}, "allow is given without url"),
        ({"start": "x", "max_turns": 0}, "max_turns is 0"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        OpenEnvSettings(**settings)


class Scripted:
    """A session that answers as it is told: by number of the session, what is refused in it and what breaks off."""

    troubles: ClassVar[list[str]] = []
    sent: ClassVar[list[str]] = []

    def __init__(self, base_url: str) -> None:
        self.trouble = self.troubles.pop(0) if self.troubles else ""

    async def reset(self, options: Any) -> Step:
        if self.trouble == "reset":
            raise OpenEnvError("too many sessions")
        return Step(observation={"said": "Guess."}, reward=None, is_done=False)

    async def step(self, action: dict[str, str]) -> Step:
        self.sent.append(action["guess"])
        if action["guess"] == "nine":
            raise OpenEnvError("not a number")
        if action["guess"] == "gone":
            raise OSError("the connection ended")
        is_done = self.trouble == "ends early" or action["guess"] == "last"
        said = "Lower." if self.trouble == "differs" else "Higher."
        return Step(observation={"said": said}, reward=0.1, is_done=is_done)

    async def close(self) -> None:
        pass


def scripted(monkeypatch: pytest.MonkeyPatch, texts: Sequence[str], troubles: Sequence[str]) -> Outcome:
    """What an episode of these texts comes to, with sessions that have these troubles."""
    monkeypatch.setattr(environment, "Connection", Scripted)
    monkeypatch.setattr(Scripted, "troubles", list(troubles))
    monkeypatch.setattr(Scripted, "sent", [])
    opened = OpenEnvEnvironment(OpenEnvSettings(url="http://127.0.0.1:1"))
    opened.action = "guess"
    task = Task(id="train/openenv-0", split="train", site='{"seed": 0}', instruction="", gold=())

    async def work() -> Outcome:
        episode = opened.begin(task, Modes())
        reply = await episode.start()
        for text in texts:
            reply = await episode.step(text)
        return reply.outcome

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("texts", "troubles", "fault"),
    [
        (["1", "nine"], [], Fault.AGENT),
        ([], ["reset", "reset", "reset"], Fault.ENVIRONMENT),
        (["1", "nine"], ["", "reset", "reset"], Fault.ENVIRONMENT),
        (["1", "gone"], ["", "reset", "reset"], Fault.ENVIRONMENT),
        (["1", "2", "nine"], ["", "ends early", "ends early"], Fault.ENVIRONMENT),
        (["1", "nine"], ["", "differs", "differs"], Fault.ENVIRONMENT),
    ],
)
def test_a_text_is_to_blame_where_every_attempt_refused_it(
    monkeypatch: pytest.MonkeyPatch, texts: list[str], troubles: list[str], fault: Fault
) -> None:
    outcome = scripted(monkeypatch, texts, troubles)
    assert (outcome.fault, outcome.num_attempts) == (fault, 3), outcome


def test_rewards_that_sum_to_the_success_return_are_a_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times 0.1 is less than 1 where it is added up one by one."""
    assert scripted(monkeypatch, [*"123456789", "last"], []).is_success
    assert not scripted(monkeypatch, [*"12345678", "last"], []).is_success


def test_what_is_sent_is_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, ["one\n\n  \ntwo"], [])
    assert split_turns(join_turns(["one\n\n  \ntwo"])) == Scripted.sent == ["one\ntwo"]


def test_a_split_without_tasks_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = registry.build("environment", "toy_sort")
    known = toy.tasks
    monkeypatch.setattr(toy, "tasks", lambda split: () if split == "val" else known(split))
    with served(toy) as address:
        with Session(OpenEnvEnvironment(OpenEnvSettings(url=address))) as opened:
            assert [len(opened.tasks(split)) for split in ("val", "test")] == [0, 120]
        with session(address) as socket:
            assert "has no task" in ask(socket, "reset", split="val")["data"]["message"]
