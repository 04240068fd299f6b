"""A site of one's own as an environment: whatever serves it, it is looked at as the built-in sites are, and run on."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from dllm_rl.environment import limited
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Observation, Task
from dllm_rl.registry import register
from harness.environments.recorded import (
    CannotHoldError,
    Observed,
    RecordedEnvironment,
    RecordedSettings,
    gold_of,
    oracle_plan,
)
from harness.environments.site.sources import Address, Application, Command, Folder, Source, run_hook
from harness.environments.site.tasks import PARTS, SiteTask, SiteTasks, TaskRecord, is_selector, make_tasks, read_tasks
from harness.recorder import Criterion
from harness.scout import default_cache_dir

MAX_WALKS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings(RecordedSettings):
    """Settings of a site of one's own. One of `url`, `folder`, `application` and `start` says where it comes from.

    Attributes:
        tasks: JSONL file of the tasks; see `harness.environments.site.tasks`. None for none.
        url: Address of a server that runs already.
        folder: Folder of HTML pages.
        application: `<file>:<attribute>` of a WSGI or ASGI application.
        start: Command that starts a server; `{port}` in it, and PORT in its environment, say at which port.
        port: Port at which that server listens by itself; None for a free one, which it is told. Only one process at a
            time may then have the site open.
        reset: Command that puts the site back to where it was, run before every attempt at a rollout and every walk
            through a form; they then go one at a time, in the one process that may have the site open.
        allow: Hosts beside this machine that `url` may name.
        sent_as: Label, HTML name or selector of a field, by the name under which a script sends it, where that is
            neither its HTML name nor its id or label.
        host: The name that the application takes for its own (the header Host); "" for any name.
        python: The interpreter that has the application's packages.
    """

    tasks: Path | None = None
    url: str | None = None
    folder: Path | None = None
    application: str | None = None
    start: str | None = None
    port: int | None = None
    reset: str | None = None
    allow: tuple[str, ...] = ()
    sent_as: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    python: str = sys.executable

    def __post_init__(self) -> None:
        RecordedSettings.__post_init__(self)
        sources = ("url", "folder", "application", "start")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"{' and '.join(given) or 'no source'} given; expected one of {', '.join(sources)}, which says where "
                "the site comes from."
            )
        for name, owner in (("port", "start"), ("allow", "url")):
            if getattr(self, name) and getattr(self, owner) is None:
                raise ConfigError(f"{name} is given without {owner}, and has no effect. Drop it.")
        if self.python != sys.executable and self.application is None:
            raise ConfigError("python is given without application, and has no effect. Drop it.")
        if self.host and self.folder is not None:
            raise ConfigError("host is given with folder, and has no effect. Drop it.")

    @property
    def place(self) -> str:
        """What tells this site from others on this machine."""
        return str(self.url or self.folder or self.application or self.start)

    def source(self) -> Source:
        """Where the site comes from."""
        if self.url is not None:
            return Address(url=self.url, allow=self.allow, authority=self.host)
        if self.folder is not None:
            return Folder(self.folder)
        if self.application is not None:
            return Application(self.application, python=self.python, authority=self.host)
        assert self.start is not None
        return Command(command=self.start, port=self.port, authority=self.host)


@register("environment", "site")
class SiteEnvironment(RecordedEnvironment[SiteSettings]):
    """Tasks on a site of one's own; which of them can be solved is known once its forms were looked at."""

    version: ClassVar[int] = 3
    splits: ClassVar[tuple[str, ...]] = tuple(PARTS)
    opens_for_tasks: ClassVar[bool] = True

    def __init__(self, settings: SiteSettings) -> None:
        super().__init__(settings)
        self.source = settings.source()
        self._seen: dict[str, Observed] = {}
        self._tasks: SiteTasks | None = None
        self._held: FileLock | None = None
        self._turn = asyncio.Lock() if settings.reset is not None else None

    @cached_property
    def records(self) -> tuple[TaskRecord, ...]:
        """The lines of the file of tasks."""
        return read_tasks(self.settings.tasks) if self.settings.tasks is not None else ()

    @property
    def exclusive_because(self) -> str | None:
        """A reset puts the whole site back, and a port of its own has room for one server."""
        if self.settings.reset is not None:
            return "its reset puts the whole site back, in the middle of what another process does there"
        return None if self.settings.port is None else f"its server listens at port {self.settings.port} alone"

    async def open(self) -> None:
        """Start the site and the proxy before it, and look at every form that a task begins on.

        Raises ConfigError where another process has it open, and only one may.
        """
        records = self.records
        self._claim()
        self.proxy.upstream = await self.source.start()
        await self.start_proxy()
        paths = dict.fromkeys(record.start for record in records)
        await limited((self.observed(path) for path in paths), self.settings.num_places("context"))
        self._check_names()
        if self._tasks is None:
            tasks = make_tasks(records, self._seen, tuple(self.files))
            self._tasks = tasks.without(await self.refusals([item.task for item in tasks.solvable]))

    def _claim(self) -> None:
        """Hold the site for this process, where only one may have it open. The claim dies with its process."""
        if self.exclusive_because is None:
            return
        here = "" if self.settings.url is not None else f"{Path.cwd()} "
        name = hashlib.sha256(f"{here}{self.settings.place}".encode()).hexdigest()[:16]
        self._held = FileLock(default_cache_dir().parent / "sites" / f"{name}.lock", thread_local=False)
        try:
            self._held.acquire(timeout=0)
        except Timeout:
            self._held = None
            raise ConfigError(
                f"'{self.settings.place}' is open in another process, and only one may have it open: "
                f"{self.exclusive_because}. Let that one end, and give the command again."
            ) from None

    def _check_names(self) -> None:
        for name, key in self.settings.sent_as.items():
            if self._seen and not any(seen.find(key) for seen in self._seen.values()):
                raise ConfigError(
                    f"sent_as.{name} is '{key}'; no form has a field with this label, name or selector. Correct it, or "
                    "drop it."
                )

    async def close(self) -> None:
        """End the browser, the proxy and what we started of the site."""
        await self.pool.close()
        await self.proxy.stop()
        await self.source.stop()
        if self._held is not None:
            self._held.release()
            self._held = None

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the browsers and of the site, where that is ours."""
        own = self.source.pid
        return (*self.pool.pids, *(() if own is None else (own,)))

    @property
    def concurrency(self) -> int:
        """One at a time where a reset puts the whole site back."""
        return super().concurrency if self._turn is None else 1

    @property
    def all_tasks(self) -> SiteTasks:
        """All tasks, and which of them can be solved. Known while or after the environment is open."""
        assert self._tasks is not None
        return self._tasks

    def tasks(self, split: str) -> tuple[Task, ...]:
        """The tasks of a split that can be solved, in the order of the file."""
        if not self.records:
            raise ConfigError("the site has no tasks. Give a JSONL file of them: the option tasks.")
        return tuple(item.task for item in self.all_tasks.solvable if item.task.split == split)

    async def take(self, drawn: SiteTasks, count: int) -> list[int]:
        """Take tasks that are no file's, and return the numbers of the first so many that their gold plans solve."""
        self._tasks, found = drawn, list[int]()
        for first in range(0, len(drawn.solvable), count):
            batch = drawn.solvable[first : first + count]
            plans = [oracle_plan(item.task, self._seen[item.task.site]) for item in batch]
            outcomes = await self.run_many([(item.task, plan) for item, plan in zip(batch, plans, strict=True)])
            found += [item.number for item, outcome in zip(batch, outcomes, strict=True) if outcome.is_success]
            if len(found) >= count:
                break
        return found[:count]

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """The plan that gives every wanted value and sends the form."""
        return oracle_plan(task, self._seen[task.site])

    def criterion(self, task: Task) -> Criterion | None:
        """When the form of this task was taken, where its line says so."""
        return self._own(task).record.success.criterion()

    def ignored(self, task: Task) -> frozenset[str]:
        """Fields whose value does not matter."""
        return self._own(task).ignored

    def _own(self, task: Task) -> SiteTask:
        return next(item for item in self.all_tasks.solvable if item.task.id == task.id)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the site for one attempt; where a reset puts it back, they go one at a time."""
        turn: AbstractAsyncContextManager[object] = self._turn or nullcontext()
        async with turn:
            yield

    async def put_back(self) -> None:
        """Run the command that puts the site back to where it was, if there is one."""
        if self.settings.reset is not None:
            await run_hook(self.settings.reset)

    async def observed(self, path: str) -> Observed:
        """The form that begins at this path, with all its pages and branches."""
        if path not in self._seen:
            self._seen[path] = await self._look_at(path)
        return self._seen[path]

    async def _look_at(self, path: str) -> Observed:
        """Walk through the form until no further page of it is found, with what is known of its fields by then."""
        records = [record for record in self.records if record.start == path]
        keys = [*self.settings.sent_as.values(), *(key for item in records for key in (*item.values, *item.ignored))]
        selectors = tuple(dict.fromkeys(filter(is_selector, keys)))
        seen = await self.survey(path, selectors=selectors, opens=not records)
        if not records:
            return self._named(seen)
        criterion = records[0].success.criterion()
        known: Mapping[str, tuple[str, ...]] | None = None
        for _ in range(MAX_WALKS):
            answers = self._answers(records[0], seen)
            if answers == known:
                break
            known = answers
            seen = await self.survey(path, answers, selectors=selectors, goes_on=True, criterion=criterion)
        return self._named(seen)

    def _named(self, seen: Observed) -> Observed:
        """The form with the names under which the user says that its fields are sent."""
        identities = dict(seen.identities)
        for name, key in self.settings.sent_as.items():
            for control in seen.find(key)[:1]:
                identities[control.field] = (*identities.get(control.field, ()), name)
        return replace(seen, identities=identities)

    def _answers(self, record: TaskRecord, seen: Observed) -> dict[str, tuple[str, ...]]:
        """What a task gives, as far as its fields are known."""
        answers: dict[str, tuple[str, ...]] = {}
        for key, value in record.values.items():
            try:
                gold = gold_of({key: value}, seen, tuple(self.files), is_whole=False)
            except CannotHoldError:
                continue
            answers |= {item.name: item.wanted for item in gold}
        return answers
