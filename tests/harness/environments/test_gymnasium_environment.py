"""Any Gymnasium environment of texts with episodes of one action has tasks, outcomes and faults like ours."""

from __future__ import annotations

from typing import Any

import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.spaces import Text  # noqa: E402

from dllm_rl.errors import ConfigError  # noqa: E402
from dllm_rl.records.tasks import Fault  # noqa: E402
from dllm_rl.session import Session  # noqa: E402
from harness.environments import GymnasiumEnvironment, GymnasiumSettings  # noqa: E402


class Echo(gymnasium.Env[str, str]):
    """Pays for the word that was shown. The other options are the ways in which an environment can go wrong."""

    observation_space = action_space = Text(max_length=8, min_length=0, charset="abcdef")

    num_resets = 0

    def __init__(self, *, trouble: str = "") -> None:
        self.trouble = trouble

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.word = "".join(self.np_random.choice(list("abcdef"), size=5))
        if self.trouble == "no start":
            Echo.num_resets += 1
            raise RuntimeError("no display")
        if self.trouble == "random":
            self.word = "".join(gymnasium.utils.seeding.np_random()[0].choice(list("abcdef"), size=8))
        return (3.0 if self.trouble == "numbers" else self.word), {}

    def step(self, action: str) -> Any:
        if self.trouble == "raises":
            raise RuntimeError("the simulator fell over")
        return "", float(action == self.word), self.trouble not in ("long", "cut"), self.trouble == "cut", {}


if "Echo-v0" not in gymnasium.registry:
    gymnasium.register(id="Echo-v0", entry_point=Echo, disable_env_checker=True)


def session(trouble: str = "", **settings: Any) -> Session[GymnasiumEnvironment]:
    settings = {"counts": {"train": 6, "val": 3}, "concurrency": 3, **settings}
    return Session(GymnasiumEnvironment(GymnasiumSettings(id="Echo-v0", options={"trouble": trouble}, **settings)))


def test_a_task_is_a_seed_and_its_reward_decides() -> None:
    with session() as opened:
        tasks = opened.tasks("train")
        pages = opened.observe_many(tasks)
        words = [page.instruction for page in pages]
        assert len({*words}) > 1 and not {task.site for task in tasks} & {task.site for task in opened.tasks("val")}
        outcomes = opened.run_many([*zip(tasks, words, strict=True), (tasks[0], "aaaaaaa")])
        assert [outcome.is_success for outcome in outcomes] == [True] * 6 + [False]
        assert opened.observe_many(tasks) == pages
        assert opened.self_check(tasks) == {}


def test_a_plan_outside_of_the_action_space_is_the_agents_failure() -> None:
    with session() as opened:
        (outcome,) = opened.run_many([(opened.tasks("train")[0], "no such letters")])
    assert (outcome.fault, outcome.is_valid, outcome.is_parsed, outcome.is_success) == (Fault.AGENT, True, False, False)


@pytest.mark.parametrize(("trouble", "why"), [("raises", "the simulator fell over"), ("cut", "truncated")])
def test_what_the_environment_loses_is_masked(trouble: str, why: str) -> None:
    with session(trouble) as opened:
        (outcome,) = opened.run_many([(opened.tasks("train")[0], "abc")])
    assert (outcome.is_valid, outcome.num_attempts) == (False, 3) and why in outcome.fault_reason


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("long", "waits for a second action"),
        ("numbers", "observes float; expected text"),
        ("no start", "cannot be reset with the seed 0: RuntimeError: no display"),
        ("random", "its seed determines"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(trouble: str, message: str) -> None:
    with session(trouble) as opened, pytest.raises(ConfigError, match=message):
        opened.run_many([(opened.tasks("train")[0], "abc")])
    assert Echo.num_resets % 3 == 0


def test_an_unknown_environment_or_option_is_refused() -> None:
    for settings in ({"id": "NoSuch-v0"}, {"id": "Echo-v0", "options": {"troubel": ""}}):
        opened = Session(GymnasiumEnvironment(GymnasiumSettings(**settings)))
        with opened, pytest.raises(ConfigError, match="cannot make"):
            opened.observe_many(opened.tasks("val")[:1])
