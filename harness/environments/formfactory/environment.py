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
from harness.environments.formfactory.application import ApplicationProcess
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
from harness.recorder import Form, RecordingProxy, Sent, folded, submissions
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
        identities: Ids of controls, by field.
        defaults: What the untouched form shows.
    """

    page: Observation
    choices: Choices
    identities: Mapping[str, Sequence[str]]
    defaults: Mapping[str, tuple[str, ...]]

    def form(self, plan: Plan) -> Form:
        """How the form is known among what a page sends."""
        spellings: dict[str, str] = {}
        fields = {control.ref: control for control in self.page.controls if control.field and control.kind != "button"}
        for control in fields.values():
            spellings.setdefault(folded(control.group or control.name), control.field)
        for control in fields.values():
            names = (control.field, *self.identities.get(control.field, ()))
            spellings |= dict.fromkeys(names, control.field)
        given = {fields[action.ref].field for action in plan.actions if action.ref in fields}
        return Form(
            spellings=spellings,
            given=frozenset(given | {name for name, held in self.defaults.items() if held}),
        )

    def received(self, sent: Sent) -> Submission:
        """The payload in visible texts."""
        fields: dict[str, tuple[str, ...]] = {
            control.field: () for control in self.page.controls if control.field and control.kind != "button"
        }
        for name, values in sent.fields.items():
            texts = self.choices.get(name, {})
            fields[name] = tuple(texts.get(value, value) for value in values)
        return Submission(accepted=sent.is_accepted, fields=fields, errors=sent.complaints)


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
                    form = seen.form(parsed)
                    server = self._server_view(rollout_id, form, takes_errors=takes_errors)
                    with attribute("execute"):
                        execution = await execute(tab, acting, parsed, seen.page, server, self.files, suspect)
                    await self.proxy.settled(rollout_id)
                sent = submissions(
                    self.proxy.exchanges(rollout_id), form, has_pressed=_has_pressed(parsed, seen.page, execution)
                )
                return _judged(task, parsed, execution, seen, sent)
            except EnvironmentFaultError as fault:
                num_broken += bool(self._broke_at(rollout_id))
                lost_at.append(fault.line)
                raise
            finally:
                self.proxy.forget(rollout_id)

        return await self.attempt(task, seen.page, once)

    def _broke_at(self, rollout_id: str) -> str:
        """What the application said to the last thing it was sent, where that was an error of its own; else ""."""
        sent = [item for item in self.proxy.exchanges(rollout_id) if item.method != "GET"]
        return f"the application answered {sent[-1].status}" if sent and sent[-1].status >= 500 else ""

    def _server_view(self, rollout_id: str, form: Form, *, takes_errors: bool) -> ServerView:
        def sent() -> list[Sent]:
            return submissions(self.proxy.exchanges(rollout_id), form)

        return ServerView(
            is_accepted=lambda: any(item.is_accepted for item in sent()),
            rejections=lambda: [item.complaints for item in sent() if not item.is_accepted],
            injected=lambda: self._broke_at(rollout_id) if takes_errors else "",
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
    identities = await tab.call("identities", seconds=2.0)
    shown = (await tab.call("look", [], seconds=2.0))["values"]
    records = enumerate(seen["controls"], start=1)
    controls = tuple(Seen.read(record).control(f"p1.e{at}", None) for at, record in records)
    defaults = {name: tuple(values) for name, values in shown.items()}
    return _Observed(
        page=Observation(titles=(seen["title"],), controls=controls),
        choices=choices,
        identities=identities,
        defaults=defaults,
    )


def _has_pressed(plan: Plan, page: Observation, execution: Execution) -> bool:
    """Whether a line pressed a button, a link, or a key that sends a form."""
    kinds = {control.ref: control.kind for control in page.controls}
    done = {item.line for item in execution.actions if item.status == "ok"}
    return any(
        action.line in done
        and (
            action.value in ("Enter", "Space")
            if action.verb == "press"
            else kinds.get(action.ref) in ("button", "link")
        )
        for action in plan.actions
    )


def _judged(task: Task, plan: Plan, execution: Execution, seen: _Observed, sent: Sequence[Sent]) -> Outcome:
    return outcomes.judge(
        Evidence(
            task=task,
            page=seen.page,
            plan=plan,
            execution=execution,
            submissions=[seen.received(item) for item in sent],
            pages_reached=1,
            defaults=seen.defaults,
        )
    )


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
