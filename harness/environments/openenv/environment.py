"""An OpenEnv server as an environment of ours: what it answers is read as text, and what is written is its one text."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from dllm_rl.environment import Environment, Unsolved
from dllm_rl.episodes import Episode, Modes, Reply, first_page, played_again
from dllm_rl.errors import ConfigError
from dllm_rl.options import unkeyed
from dllm_rl.records.rollout import squeezed
from dllm_rl.records.tasks import (
    RETURN,
    ActionResult,
    Ending,
    Fault,
    FieldResult,
    GoldField,
    Observation,
    Outcome,
    Passage,
    Task,
)
from dllm_rl.registry import register
from harness.browser import NUM_ATTEMPTS
from harness.environments.base import check_counts
from harness.environments.openenv.client import Connection, OpenEnvError, Step, ask_json
from harness.environments.site.sources import Address, Command

DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120}
SEEDS_A_SPLIT = 1_000_000
# Ten times 0.1 is a little less than 1.
ROUNDING = 1e-9
EARNED = GoldField(name=RETURN, kind="number", wanted=("1",), label="sum of the rewards of the environment's own")
# What an observation holds beside what is read.
_APART = frozenset({"metadata", "reward", "done"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenEnvSettings:
    """Settings of an OpenEnv environment. One of `url` and `start` says where the server is.

    Attributes:
        url: Address of a server that runs already.
        start: Command that starts a server; `{port}` in it, and PORT in its environment, say at which port.
        allow: Hosts beside this machine that `url` may name.
        action: Field of the action that takes the text; "" for the only text that the server's schema requires.
        observation: Field of the observation that is read; "" for all of them.
        options: Further arguments of every reset.
        counts: Number of tasks by split, at most as many as the server has, if it names its splits. Otherwise a task
            is a seed, and each split has seeds of its own.
        success_return: An episode whose rewards come to at least this is a success.
        max_turns: Turns after which an episode ends.
        concurrency: Sessions at a time.
    """

    url: str | None = None
    start: str | None = None
    allow: tuple[str, ...] = ()
    action: str = ""
    observation: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    success_return: float = 1.0
    max_turns: int = 16
    concurrency: int = unkeyed(8)

    def __post_init__(self) -> None:
        check_counts(self.counts, DEFAULT_COUNTS)
        if (self.url is None) == (self.start is None):
            raise ConfigError("expected one of url and start, which says where the server is.")
        if self.allow and self.url is None:
            raise ConfigError("allow is given without url, and has no effect. Drop it.")
        for name in ("max_turns", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1.")


@register("environment", "openenv")
class OpenEnvEnvironment(Environment):
    """Episodes on an OpenEnv server whose actions are texts. No oracle is known."""

    version: ClassVar[int] = 2
    splits: ClassVar[tuple[str, ...]] = tuple(DEFAULT_COUNTS)
    is_episodic: ClassVar[bool] = True
    has_return: ClassVar[bool] = True
    opens_for_tasks: ClassVar[bool] = True

    def __init__(self, settings: OpenEnvSettings) -> None:
        if importlib.util.find_spec("websockets") is None:
            raise ConfigError("the package 'websockets' is not installed. Install it: pip install 'dllm-rl[openenv]'")
        self.settings = settings
        self.base_url = self.action = ""
        self._num_tasks: dict[str, int] = {}
        source = Address(url=settings.url, allow=settings.allow) if settings.url is not None else None
        self._source = source or Command(command=settings.start or "")

    async def open(self) -> None:
        """Start the server, and ask what it takes and which tasks it has."""
        upstream = await self._source.start()
        self.base_url = f"{upstream.scheme}://{upstream.host}:{upstream.port}"
        self.action = self.settings.action or _text_of(await asyncio.to_thread(ask_json, self.base_url, "/schema"))
        self._num_tasks = await asyncio.to_thread(_counted, self.base_url)

    async def close(self) -> None:
        """End what was started."""
        await self._source.stop()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process of the server, where it is ours."""
        return () if self._source.pid is None else (self._source.pid,)

    @property
    def concurrency(self) -> int:
        """Sessions at a time."""
        return self.settings.concurrency

    @property
    def max_open(self) -> int:
        """Episodes under way at a time."""
        return self.settings.concurrency

    @property
    def max_turns(self) -> int:
        """Turns after which an episode ends."""
        return self.settings.max_turns

    def tasks(self, split: str) -> tuple[Task, ...]:
        """The server's tasks, or one a seed."""
        count, given = {**DEFAULT_COUNTS, **self.settings.counts}[split], self._num_tasks.get(split)
        first = list(DEFAULT_COUNTS).index(split) * SEEDS_A_SPLIT
        is_seed = given is None
        resets = [{"seed": first + number} if is_seed else {"split": split, "index": number} for number in range(count)]
        return tuple(
            Task(
                id=f"{split}/openenv-{number}", split=split, site=json.dumps(reset), instruction="", gold=(EARNED,)
            )
            for number, reset in enumerate(resets[:given])
        )  # fmt: skip

    def begin(self, task: Task, modes: Modes) -> OpenEnvEpisode:
        """An episode of a task, in a session of its own."""
        return OpenEnvEpisode(self, task)

    async def observe(self, task: Task) -> Observation:
        """What stands at the beginning of an episode."""
        return await first_page(self.begin(task, Modes()), task)

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Play the turns of a recorded episode; an empty line stands between two of them."""
        return await played_again(self.begin(task, Modes()), plan)

    async def self_check(self, tasks: Sequence[Task]) -> dict[str, Unsolved]:
        """Nothing is known that would solve a task."""
        return {}


class _RefusedError(OpenEnvError):
    """The server refused the text of the present turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """What a turn showed, which must be the same when it is played again."""

    text: str
    reward: float | None


class OpenEnvEpisode(Episode):
    """One session. What the server loses is played again from its reset; a text that it refuses every time is at fault.

    A turn has several attempts of its own. A server that answers otherwise when it is asked again has lost the episode:
    its page is then not the one for which the text was written.
    """

    def __init__(self, environment: OpenEnvEnvironment, task: Task) -> None:
        self.environment, self.task = environment, task
        self._connection: Connection | None = None
        self._texts: list[str] = []
        self._rewards: list[float] = []
        self._shown: list[_Shown] = []
        self._num_attempts = 1

    async def start(self) -> Reply:
        """Reset."""
        return await self._attempted()

    async def step(self, plan: str) -> Reply:
        """Send one text."""
        self._texts.append(squeezed(plan))
        return await self._attempted()

    async def close(self) -> None:
        """End the session."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _attempted(self) -> Reply:
        refusals: list[bool] = []
        while True:
            try:
                return self._reply(await self._turn())
            except (OSError, TimeoutError, OpenEnvError) as error:
                await self.close()
                refusals.append(isinstance(error, _RefusedError))
                if len(refusals) == NUM_ATTEMPTS:
                    return self._ended(error, is_refused=all(refusals))
                self._num_attempts += 1

    async def _turn(self) -> Step:
        """Send the present text, or begin where there is none. Raises _RefusedError where that text is refused."""
        step = None if self._connection is not None else await self._replayed()
        assert self._connection is not None
        if not self._texts:
            assert step is not None
            return step
        try:
            return await self._acted(self._connection, self._texts[-1])
        except OpenEnvError as error:
            raise _RefusedError(str(error)) from error

    async def _replayed(self) -> Step:
        """Begin the episode, and play the turns before the present one again."""
        self._rewards = []
        self._connection = Connection(self.environment.base_url)
        step = await self._connection.reset({**self.environment.settings.options, **json.loads(self.task.site)})
        self._compare(0, step)
        for number, text in enumerate(self._texts[:-1], start=1):
            step = await self._acted(self._connection, text)
            if step.is_done:
                raise OSError("the episode, played again, ended earlier than before")
            self._compare(number, step)
        return step

    def _compare(self, number: int, step: Step) -> None:
        """Raise OSError where a turn that was played before shows something else now."""
        if self._shown and self._seen(step) != self._shown[number]:
            raise OSError(f"the episode, played again, went another way than before at turn {number}")

    def _seen(self, step: Step) -> _Shown:
        return _Shown(text=_read(step, self.environment.settings.observation), reward=step.reward)

    async def _acted(self, connection: Connection, text: str) -> Step:
        step = await connection.step({self.environment.action: text})
        self._rewards.append(step.reward or 0.0)
        return step

    def _reply(self, step: Step) -> Reply:
        is_over = step.is_done or len(self._texts) == self.environment.settings.max_turns
        outcome = self._outcome(is_ended=is_over)
        if is_over:
            ending = Ending.FINISHED if step.is_done else Ending.TURNS
            return Reply(observation=None, outcome=replace(outcome, ending=ending))
        self._shown.append(self._seen(step))
        now = self._shown[-1].text if self._texts else ""
        passages = (Passage(text=now, before=""),) if now else ()
        page = Observation(titles=("",), controls=(), instruction=self._shown[0].text, passages=passages)
        return Reply(observation=page, outcome=outcome)

    def _ended(self, error: Exception, *, is_refused: bool) -> Reply:
        """What was lost in every attempt. A server that refuses what was written in all of them is not at fault."""
        reason = str(error) or type(error).__name__
        refused = tuple(
            ActionResult(line=1, text=" ".join(text.split()), status="failed", note=reason) for text in self._texts[-1:]
        )
        outcome = replace(
            self._outcome(is_ended=False),
            fault=Fault.AGENT if is_refused else Fault.ENVIRONMENT,
            fault_reason=reason,
            actions=refused if is_refused else (),
            ending=Ending.UNREADABLE if is_refused else Ending.LOST,
        )
        return Reply(observation=None, outcome=outcome)

    def _outcome(self, *, is_ended: bool) -> Outcome:
        total = math.fsum(self._rewards)
        result = FieldResult(
            name=EARNED.name,
            wanted=EARNED.wanted,
            # An episode that something else cuts short has earned what it has so far.
            server=(repr(total),),
            dom=None,
            is_correct=is_ended and total >= self.environment.settings.success_return - ROUNDING,
            is_default=False,
        )
        # The notebook keeps what was done and what it earned.
        actions = tuple(
            ActionResult(line=1, text=" ".join(text.split()), status="ok", note=f"reward {reward:g}")
            for text, reward in zip(self._texts[-1:], self._rewards[-1:], strict=False)
        )
        return Outcome(
            task_id=self.task.id,
            is_submitted=is_ended,
            fields=(result,),
            actions=actions,
            pages_reached=1,
            num_submissions=int(is_ended),
            num_attempts=self._num_attempts,
        )


def _read(step: Step, name: str) -> str:
    """The text of an observation: one field of it, or all that says something."""
    seen = {key: value for key, value in step.observation.items() if key not in _APART}
    if name:
        if name not in seen:
            raise ConfigError(f"observation is '{name}'; the server's observation has {', '.join(seen)}.")
        seen = {name: seen[name]}
    texts = [value for value in seen.values() if value not in ("", None, [], {}, False)]
    if len(texts) == 1 and isinstance(texts[0], str):
        return texts[0]
    return json.dumps(seen, ensure_ascii=False)


def _text_of(schema: Any) -> str:
    """The one text that an action must have."""
    action = (schema or {}).get("action", {})
    known, required = action.get("properties", {}), set(action.get("required", ()))
    texts = [name for name in known if name in required and known[name].get("type") == "string"]
    if len(texts) != 1 or len(required) > 1:
        raise ConfigError(
            f"the server's actions have {', '.join(known) or 'no field that it names'}; expected one text that is "
            "required, and nothing else. Name the one that takes the text: the option action."
        )
    return texts[0]


def _counted(base_url: str) -> dict[str, int]:
    """Number of tasks by split of ours, where the server names its splits; {} for one that names none."""
    names = ask_json(base_url, "/list_environments")
    if not names:
        return {}
    found = {item["name"] for item in ask_json(base_url, f"/{names[0]}/splits") or []}
    counts = dict.fromkeys(DEFAULT_COUNTS, 0) if found else {}
    for split in found & set(counts):
        told = ask_json(base_url, f"/{names[0]}/num_tasks", {"split": split})
        if told is None:
            raise ConfigError(f"{base_url} names the split {split}, and does not say how many tasks it has.")
        counts[split] = told["num_tasks"]
    return counts
