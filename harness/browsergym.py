"""Tasks for BrowserGym, so that its agents, such as AgentLab's, work on our sites and on a site of one's own.

    names = harness.browsergym.register_environment("forms", split="test", count=20)
    environment = gymnasium.make(names[0])

BrowserGym drives a browser of its own. What the server received is the truth, as in every environment of ours: an
episode is done once a form was accepted. `browsergym-core` is installed apart: it asks for a Playwright of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from browsergym.core.registration import register_task  # pyright: ignore[reportMissingImports]
from browsergym.core.task import AbstractBrowserTask  # pyright: ignore[reportMissingImports]

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion, one_turn, rewarded
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.reward import Reward
from harness.environments import FormEnvironment, SiteEnvironment
from harness.sites.public_sites import PublicSites

T = TypeVar("T")
_numbers = itertools.count(1)


class Sites(Protocol):
    """Sites that begin episodes, and say what these came to."""

    async def begin(self, task: Task) -> tuple[str, str]:
        """A new episode, and its address."""
        ...

    async def outcome(self, task: Task, episode: str) -> Outcome:
        """What an episode has come to by now."""
        ...

    async def end(self, episode: str) -> None:
        """Forget an episode."""
        ...


class BuiltIn:
    """The built-in sites."""

    def __init__(self, sites: PublicSites) -> None:
        self.sites = sites

    async def begin(self, task: Task) -> tuple[str, str]:
        """A new episode, and its address."""
        return self.sites.begin(task)

    async def outcome(self, task: Task, episode: str) -> Outcome:
        """What an episode has come to by now."""
        return self.sites.outcome(episode)

    async def end(self, episode: str) -> None:
        """Forget an episode."""
        self.sites.forget(episode)


class Own:
    """A site of one's own."""

    def __init__(self, environment: SiteEnvironment) -> None:
        self.environment = environment

    async def begin(self, task: Task) -> tuple[str, str]:
        """A new episode, and its address."""
        return await self.environment.begin_elsewhere(task)

    async def outcome(self, task: Task, episode: str) -> Outcome:
        """What an episode has come to by now."""
        return await self.environment.outcome_elsewhere(task, episode)

    async def end(self, episode: str) -> None:
        """Forget an episode."""
        self.environment.forget_elsewhere(episode)


class Loop:
    """An event loop in a thread, since BrowserGym blocks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="sites", daemon=True).start()

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """What a coroutine returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()


class SiteTask(AbstractBrowserTask):
    """One task on a site that this process serves."""

    def __init__(self, seed: int, task: Task, sites: Sites, loop: Loop, reward: Reward) -> None:
        super().__init__(seed)
        self.task, self.sites, self.loop, self.reward = task, sites, loop, reward
        self.slow_mo = 0
        self.episode = ""

    @classmethod
    def get_task_id(cls) -> str:
        """What BrowserGym calls it."""
        return "dllm_rl"

    def setup(self, page: Any) -> tuple[str, dict[str, Any]]:
        """Open the first page; the goal is the instruction."""
        self.episode, address = self.loop.wait_for(self.sites.begin(self.task))
        page.goto(address)
        return self.task.instruction, {"task": self.task.id}

    def teardown(self) -> None:
        """Forget the episode."""
        self.loop.wait_for(self.sites.end(self.episode))

    def validate(self, page: Any, chat_messages: list[str]) -> tuple[float, bool, str, dict[str, Any]]:
        """What the server received so far. The reward is paid once, with the form that was accepted."""
        outcome = self.loop.wait_for(self.sites.outcome(self.task, self.episode))
        if not outcome.is_submitted:
            return 0.0, False, "", {}
        attempt = one_turn(self.task, Observation(titles=(), controls=()), Completion(plan=""), outcome)
        (rollout,) = rewarded(self.reward, [attempt])
        return rollout.reward.value, True, "", {"is_success": outcome.is_success}


def register_environment(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    split: str = "test",
    count: int = 20,
    reward: str = "outcome",
) -> list[str]:
    """Serve an environment until this process ends, and register its tasks.

    Args:
        name: `forms`, or `site` for one of your own.
        options: Options of the environment, as a preset has them.
        split: Split of the tasks.
        count: At most so many of them.
        reward: Name of the reward.

    Returns:
        Ids for `gymnasium.make`, in the order of the tasks.
    """
    environment, loop = registry.build("environment", name, options or {}), Loop()
    sites: Sites
    if isinstance(environment, SiteEnvironment):
        loop.wait_for(environment.open())
        atexit.register(lambda: loop.wait_for(environment.close()))
        tasks, sites = environment.tasks(split)[:count], Own(environment)
    elif isinstance(environment, FormEnvironment):
        tasks = environment.tasks(split)[:count]
        public = PublicSites(tasks)
        loop.wait_for(public.server.start())
        atexit.register(lambda: loop.wait_for(public.server.stop()))
        sites = BuiltIn(public)
    else:
        raise ConfigError(f"'{name}' has no pages for another browser. Give forms, or site.")
    shared = {"sites": sites, "loop": loop, "reward": registry.build("reward", reward)}
    number = next(_numbers)
    ids = [f"dllm_rl.{name}{number}.{at}" for at in range(len(tasks))]
    for task_id, task in zip(ids, tasks, strict=True):
        register_task(task_id, SiteTask, task_kwargs={"task": task, **shared}, nondeterministic=False)
    return [f"browsergym/{task_id}" for task_id in ids]
