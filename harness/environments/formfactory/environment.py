"""Observe and run the forms of a checkout in real Chromium; the payload that its application received is the truth."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import mimetypes
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit
from weakref import WeakSet

from playwright.async_api import Route

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import Plan, parse_plan
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.registry import register
from harness.browser import (
    FOREIGN,
    Attempt,
    EnvironmentFaultError,
    Isolation,
    Tab,
    attribute,
    isolation_named,
)
from harness.environments.base import IN_A_TAB, BrowserEnvironment, BrowserSettings
from harness.environments.formfactory.application import ApplicationProcess, RecordingProxy, Sent
from harness.environments.formfactory.checkout import (
    MAX_PAGES,
    Catalogue,
    Checkout,
    FormRecords,
    PageLinks,
    make_catalogue,
    oracle_plan,
)
from harness.execute import Execution, ExecutorName, ServerView, execute, executor_named
from harness.judge import Evidence
from harness.judge import outcome as outcomes
from harness.scout import Seen
from harness.sites import Submission

Choices = Mapping[str, Mapping[str, str]]
# Which of every five solvable records belong to a split.
NUM_PARTS = 5
PARTS = {"train": (0, 1, 2), "val": (3,), "test": (4,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Observed:
    """A form as it loads.

    Attributes:
        page: Its observation.
        choices: Visible text by HTML value, by field.
        defaults: What the untouched form shows.
    """

    page: Observation
    choices: Choices
    defaults: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFactorySettings(BrowserSettings):
    """Settings of the FormFactory environment.

    Attributes:
        folder: The user's checkout.
        application: `file:attribute` of its WSGI application, the file relative to the folder.
        forms: Gold file by page path; None to find out which file belongs to which page.
        fixtures: Folder of files that plans may upload; None for none.
        vendored: Folder of external assets, as `<host>/<path>`; what is not there is refused, as is everything outside
            of loopback.
        python: The interpreter that has the application's packages.
    """

    folder: Path
    application: str = "app.py:app"
    forms: Mapping[str, str] | None = None
    fixtures: Path | None = None
    vendored: Path | None = None
    python: str = sys.executable
    isolation: Isolation = "context"
    executor: ExecutorName = "trusted"

    def __post_init__(self) -> None:
        BrowserSettings.__post_init__(self)
        if self.isolation == "arena":
            raise ConfigError("isolation is arena; forms of a checkout run in a tab: context, origin or page.")
        if self.fixtures is not None and not self.fixtures.is_dir():
            raise ConfigError(
                f"fixtures is '{self.fixtures}'; expected a folder of files. Give one, or leave fixtures out."
            )


@register("environment", "formfactory")
class FormFactoryEnvironment(BrowserEnvironment[FormFactorySettings]):
    """Tasks from a user's own checkout; which ones there are is known once its forms were looked at."""

    splits: ClassVar[tuple[str, ...]] = tuple(PARTS)
    opens_for_tasks: ClassVar[bool] = True
    isolations: ClassVar[tuple[str, ...]] = IN_A_TAB

    def __init__(self, settings: FormFactorySettings) -> None:
        super().__init__(settings)
        self.checkout = Checkout(folder=settings.folder, application=settings.application, forms=settings.forms)
        paths = sorted(settings.fixtures.iterdir()) if settings.fixtures else []
        self.files = {path.name: path.read_bytes() for path in paths if path.is_file()}
        self.application = ApplicationProcess(settings.folder, settings.application, python=settings.python)
        self.proxy = RecordingProxy()
        self.forms: tuple[FormRecords, ...] = ()
        self._catalogue: Catalogue | None = None
        self._seen: dict[str, _Observed] = {}
        self._numbers = itertools.count(1)
        self._routed: WeakSet[Tab] = WeakSet()

    async def open(self) -> None:
        """Start the application and the proxy before it, and look at every form."""
        await self.application.start()
        self.proxy.upstream = self.application.port
        await self.proxy.start()
        if self._catalogue is None:
            self._catalogue = await self._look_at_all()

    async def close(self) -> None:
        """End the browser, the proxy and the application."""
        await self.pool.close()
        await self.proxy.stop()
        await self.application.stop()

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the browsers and of the application."""
        application = self.application.pid
        return (*self.pool.pids, *(() if application is None else (application,)))

    @property
    def catalogue(self) -> Catalogue:
        """All records, and which of them can be satisfied. Known while or after the environment is open."""
        assert self._catalogue is not None
        return self._catalogue

    def tasks(self, split: str) -> tuple[Task, ...]:
        """The solvable records of a split; of five in a row, three are for training, one is val and one test."""
        return tuple(
            replace(task, id=f"{split}/{task.id}", split=split)
            for number, task in enumerate(self.catalogue.tasks)
            if number % NUM_PARTS in PARTS[split]
        )

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """The plan that gives every gold value and sends the form."""
        return oracle_plan(task, observation)

    async def _look_at_all(self) -> Catalogue:
        """Look at every form once, give it its gold records, and say which of them can be satisfied."""
        paths = list(self.checkout.forms or await asyncio.to_thread(self._linked_forms))
        for path in paths:
            await self._observed(path)
        pages = {path: self._seen[path].page for path in paths}
        self.forms = self.checkout.assign(pages)
        defaults = {path: self._seen[path].defaults for path in paths}
        return make_catalogue(self.forms, pages, defaults, self.files)

    async def observe(self, task: Task) -> Observation:
        """The controls of the task's form."""
        return (await self._observed(task.site)).page

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Run a plan once and judge it by what the application received and answered."""
        mode = isolation_named(isolation or self.settings.isolation)
        acting = executor_named(executor or self.settings.executor)
        seen = await self._observed(task.site)
        parsed, num_broken = parse_plan(plan), 0
        lost_at: list[int | None] = []

        async def once(attempt: Attempt) -> Outcome:
            nonlocal num_broken
            suspect = lost_at[0] if attempt.is_last and len(set(lost_at)) == 1 else None
            rollout_id = f"f{next(self._numbers)}"
            # An application that breaks at this plan's form every time is refusing it, in its way.
            takes_errors = attempt.is_last and num_broken == attempt.number - 1
            try:
                async with self.pool.tab(mode, is_fresh=attempt.is_fresh) as tab:
                    await self._open(tab, task.site, rollout_id)
                    server = self._server_view(rollout_id, takes_errors=takes_errors)
                    with attribute("execute"):
                        execution = await execute(tab, acting, parsed, seen.page, server, self.files, suspect)
                    await self.proxy.settled(rollout_id)
                return self._judged(task, parsed, execution, seen, rollout_id)
            except EnvironmentFaultError as fault:
                num_broken += bool(self._broke_at(rollout_id))
                lost_at.append(fault.line)
                raise
            finally:
                self.proxy.forget(rollout_id)

        return await self.attempt(task, seen.page, once)

    def _broke_at(self, rollout_id: str) -> str:
        """What the application said to the last form of a rollout, where that was an error of its own; else ""."""
        sent = self.proxy.sent(rollout_id)
        return _complaint(sent[-1])[0] if sent and sent[-1].status >= 500 else ""

    def _server_view(self, rollout_id: str, *, takes_errors: bool) -> ServerView:
        return ServerView(
            is_accepted=lambda: any(item.is_accepted for item in self.proxy.sent(rollout_id)),
            rejections=lambda: [_complaint(item) for item in self.proxy.sent(rollout_id) if not item.is_accepted],
            injected=lambda: self._broke_at(rollout_id) if takes_errors else "",
        )

    def _judged(self, task: Task, plan: Plan, execution: Execution, seen: _Observed, rollout_id: str) -> Outcome:
        return outcomes.judge(
            Evidence(
                task=task,
                page=seen.page,
                plan=plan,
                execution=execution,
                submissions=[_received(item, seen) for item in self.proxy.sent(rollout_id)],
                pages_reached=1,
                defaults=seen.defaults,
            )
        )

    async def _observed(self, path: str) -> _Observed:
        async def once(attempt: Attempt) -> _Observed:
            rollout_id = f"f{next(self._numbers)}"
            try:
                async with self.pool.tab(self.settings.isolation, is_fresh=attempt.is_fresh) as tab:
                    await self._open(tab, path, rollout_id)
                    return await _observe(tab)
            finally:
                self.proxy.forget(rollout_id)

        if path not in self._seen:
            self._seen[path] = await self.pool.attempts(once)
        return self._seen[path]

    async def _open(self, tab: Tab, path: str, rollout_id: str) -> None:
        if self.settings.vendored is not None and tab not in self._routed:
            await tab.context.route(FOREIGN, self._give_vendored)
            self._routed.add(tab)
        await tab.goto(self.proxy.url(rollout_id, path))

    async def _give_vendored(self, route: Route) -> None:
        """A file that the user keeps, or nothing: no request leaves."""
        assert self.settings.vendored is not None
        parts = urlsplit(route.request.url)
        path = (self.settings.vendored / parts.netloc / parts.path.lstrip("/")).resolve()
        if not path.is_relative_to(self.settings.vendored.resolve()) or not path.is_file():
            await route.abort("addressunreachable")
            return
        headers = {"Access-Control-Allow-Origin": "*"}
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        await route.fulfill(body=path.read_bytes(), content_type=kind, headers=headers)

    def _linked_forms(self) -> list[str]:
        """Paths of pages with a form, found by following links from the first page."""
        paths, found = ["/"], []
        for path in paths:
            page = PageLinks(path)
            page.feed(_get(self.application.port, path))
            if page.has_form:
                found.append(path)
            paths += [link for link in dict.fromkeys(page.links) if link not in paths][: MAX_PAGES - len(paths)]
        return found


async def _observe(tab: Tab) -> _Observed:
    seen = await tab.call("inventory", seconds=2.0)
    choices = await tab.call("choices", seconds=2.0)
    shown = (await tab.call("look", [], seconds=2.0))["values"]
    records = enumerate(seen["controls"], start=1)
    controls = tuple(Seen.read(record).control(f"p1.e{at}", None) for at, record in records)
    defaults = {name: tuple(values) for name, values in shown.items()}
    return _Observed(page=Observation(titles=(seen["title"],), controls=controls), choices=choices, defaults=defaults)


def _received(sent: Sent, seen: _Observed) -> Submission:
    """The payload in visible texts; what no control of the form stands for (tokens, script state) is left out."""
    fields = {}
    for name in {control.field for control in seen.page.controls if control.field and control.kind != "button"}:
        texts = seen.choices.get(name, {})
        fields[name] = tuple(texts.get(value, value) for value in sent.fields.get(name, ()))
    return Submission(accepted=sent.is_accepted, fields=fields, errors=() if sent.is_accepted else _complaint(sent))


def _complaint(sent: Sent) -> tuple[str, ...]:
    return (f"the application answered {sent.status}",)


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        is_page = response.status == 200 and "html" in response.getheader("content-type", "")
        return response.read().decode("utf-8", errors="replace") if is_page else ""
    finally:
        connection.close()


def sample(tasks: Sequence[Task], max_records: int | None) -> list[Task]:
    """The first records of each form."""
    kept: dict[str, list[Task]] = {}
    for task in tasks:
        kept.setdefault(task.site, []).append(task)
    return [task for form in kept.values() for task in form[:max_records]]
