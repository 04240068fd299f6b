"""Pages that are not ours, behind the recording proxy: observed, run, and judged by what their application received."""

from __future__ import annotations

import itertools
import mimetypes
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet

from playwright.async_api import Route

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import Plan, parse_plan
from dllm_rl.records.tasks import Observation, Outcome, Task
from harness.browser import Attempt, EnvironmentFaultError, Isolation, Tab, attribute, isolation_named
from harness.environments.base import IN_A_TAB, BrowserEnvironment, BrowserSettings
from harness.environments.recorded.observed import Observed, Values
from harness.environments.recorded.validity import refusals
from harness.execute import Execution, ExecutorName, Presses, ServerView, execute, executor_named
from harness.judge import Evidence
from harness.judge import outcome as outcomes
from harness.recorder import Criterion, Exchange, Form, RecordingProxy, Sent, is_form, submissions
from harness.scout import Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSettings(BrowserSettings):
    """Settings of environments on pages that are not ours.

    Attributes:
        fixtures: Folder of files that plans may upload; None for none.
        vendored: Folder of external assets, as `<host>/<path>`; what is not there is refused, as is everything but the
            site.
    """

    fixtures: Path | None = None
    vendored: Path | None = None
    isolation: Isolation = "context"
    executor: ExecutorName = "trusted"

    def __post_init__(self) -> None:
        BrowserSettings.__post_init__(self)
        if self.isolation == "arena":
            raise ConfigError("isolation is arena; pages that are not ours run in a tab: context, origin or page.")
        for name, folder in (("fixtures", self.fixtures), ("vendored", self.vendored)):
            if folder is not None and not folder.is_dir():
                raise ConfigError(f"{name} is '{folder}'; expected a folder of files. Give one, or leave {name} out.")


S = TypeVar("S", bound=RecordedSettings)


class RecordedEnvironment(BrowserEnvironment[S]):
    """An environment whose pages come through `proxy`, which a derived class starts and ends.

    A task's `site` is the path of its first page.

    Attributes:
        refused: Addresses outside of the site that its pages asked for while they were looked at, and of sockets and
            downloads.
        sent_otherwise: By field, the name under which its value was sent, where that is neither the field's name nor
            its id or label.
    """

    isolations: ClassVar[tuple[str, ...]] = IN_A_TAB

    def __init__(self, settings: S) -> None:
        super().__init__(settings)
        paths = sorted(settings.fixtures.iterdir()) if settings.fixtures else []
        self.files = {path.name: path.read_bytes() for path in paths if path.is_file()}
        self.proxy = RecordingProxy(lambda seconds: self.pool.pace.seconds(seconds))
        self.refused: dict[str, None] = {}
        self.sent_otherwise: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._routed: WeakSet[Tab] = WeakSet()

    @abstractmethod
    async def observed(self, path: str) -> Observed:
        """The form whose first page has this path. Called often."""

    def criterion(self, task: Task) -> Criterion | None:
        """When the form of this task was taken, where the user says so."""
        return None

    def ignored(self, task: Task) -> frozenset[str]:
        """Fields whose value does not matter to this task."""
        return frozenset()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the site for one attempt. Here several attempts go on at a time."""
        yield

    async def put_back(self) -> None:
        """Put the site back to where it was before anything was sent. Here it stays as it is."""

    async def start_proxy(self) -> None:
        """Start the proxy, and launch browsers that reach it and nothing else."""
        await self.proxy.start()
        self.pool.keep_to(self.proxy.port)

    async def survey(
        self,
        path: str,
        answers: Values = MappingProxyType({}),
        *,
        selectors: tuple[str, ...] = (),
        goes_on: bool = False,
        opens: bool = True,
        criterion: Criterion | None = None,
    ) -> Observed:
        """Look at the form that begins at a path. Raises ConfigError where that page cannot be had.

        Args:
            path: Path of its first page.
            answers: Values by field that get past its pages.
            selectors: What else to find.
            goes_on: Whether to hand a page in and see whether another follows.
            opens: Whether to see what clicks open.
            criterion: When the form was taken, where the user says so.
        """
        ids: list[str] = []

        def new_start_url() -> str:
            ids.append(self.new_id())
            return self.proxy.url(ids[-1], path)

        def is_over() -> bool:
            seen = self.proxy.exchanges(ids[-1])
            sent = [item for item in seen if item.method != "GET"]
            return criterion is not None and bool(sent) and not criterion.complaints(sent[-1], seen[-1])

        async def once(attempt: Attempt) -> Observed:
            try:
                async with self.turn(), self.pool.tab("context", is_fresh=attempt.is_fresh) as tab:
                    for event in ("websocket", "download"):
                        tab.page.on(event, self._note_refused)
                    await self.vendor(tab)
                    look = Survey(
                        tab=tab, new_start_url=new_start_url, answers=answers, files=self.files, selectors=selectors,
                        goes_on=goes_on, opens=opens, is_over=is_over, put_back=self.put_back,
                    )  # fmt: skip
                    found = Observed.read(await look.run())
                    self.refused |= {**dict.fromkeys(tab.foreign), **self.proxy.refused}
                    return found
            except EnvironmentFaultError:
                self._say_where_it_leads(path, ids)
                raise
            finally:
                for rollout_id in ids:
                    self.proxy.forget(rollout_id)

        try:
            return await self.pool.attempts(once)
        except EnvironmentFaultError as fault:
            raise ConfigError(
                f"{path} cannot be looked at: {fault}. Open it in a browser of your own first."
            ) from fault

    def _note_refused(self, opened: Any) -> None:
        """Note the address of what a page opens beside documents; the site's own without the name of the rollout."""
        self.refused[re.sub(rf"//[\w-]+\.localhost:{self.proxy.port}\b", "//localhost", opened.url)] = None

    def _say_where_it_leads(self, path: str, ids: Sequence[str]) -> None:
        """Raise ConfigError where a page leads out of the site."""
        answered = [item for rollout_id in ids for item in self.proxy.exchanges(rollout_id) if item.path == path]
        where = next((item.location for item in answered if "//" in item.location), "")
        if where and self.pool.foreign.match(where):
            raise ConfigError(
                f"{path} leads to {where}, which is not the site. Give the name that the application takes for its own "
                "(host), or a page that stays."
            )

    async def refusals(self, tasks: Sequence[Task]) -> dict[str, str]:
        """By task, why the browser itself would not send what it wants."""

        async def once(attempt: Attempt) -> dict[str, str]:
            async with self.pool.tab("context", is_fresh=attempt.is_fresh) as tab:
                return await refusals(tab, [(task, await self.observed(task.site)) for task in tasks])

        return await self.pool.attempts(once) if tasks else {}

    async def observe(self, task: Task) -> Observation:
        """The controls of the task's form."""
        return (await self.observed(task.site)).page

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Run a plan once and judge it by what the application received and answered."""
        mode = isolation_named(isolation or self.settings.isolation)
        acting = executor_named(executor or self.settings.executor)
        seen = await self.observed(task.site)
        parsed, num_broken = parse_plan(plan), 0
        form = seen.form(parsed, self.criterion(task))
        lost_at: list[int | None] = []

        async def once(attempt: Attempt) -> Outcome:
            nonlocal num_broken
            suspect = lost_at[0] if attempt.is_last and len(set(lost_at)) == 1 else None
            rollout_id = self.new_id()
            # An application that breaks at this plan's form every time is refusing it, in its way.
            takes_errors = attempt.is_last and num_broken == attempt.number - 1
            presses = self._presses(rollout_id, form)
            try:
                async with self.turn():
                    await self.put_back()
                    async with self.pool.tab(mode, is_fresh=attempt.is_fresh) as tab:
                        await self.load(tab, task.site, rollout_id)
                        server = self._server_view(rollout_id, form, presses, takes_errors=takes_errors)
                        with attribute("execute"):
                            execution = await execute(tab, acting, parsed, seen.page, server, self.files, suspect)
                sent = submissions(self.proxy.exchanges(rollout_id), form, pressed_after=presses.first)
                outcome = self._judged(task, parsed, execution, seen, sent)
                self._note_names(outcome, form, self.proxy.exchanges(rollout_id))
                return outcome
            except EnvironmentFaultError as fault:
                num_broken += bool(self._broke_at(rollout_id))
                lost_at.append(fault.line)
                raise
            finally:
                self.proxy.forget(rollout_id)

        return await self.attempt(task, seen.page, once)

    async def begin_elsewhere(self, task: Task) -> tuple[str, str]:
        """A new episode for a browser that is not ours, and the address that it starts at."""
        await self.put_back()
        episode = self.new_id()
        return episode, self.proxy.url(episode, task.site)

    async def outcome_elsewhere(self, task: Task, episode: str) -> Outcome:
        """What such an episode has come to by now. The application alone is asked."""
        plan, seen = parse_plan(""), await self.observed(task.site)
        form = seen.form(plan, self.criterion(task))
        # What that browser gives is not told; it is asked to give what the task wants.
        form = replace(form, given=form.given | {item.name for item in task.gold})
        await self.proxy.settled(episode, lambda item: is_form(item, form, 0))
        sent = submissions(self.proxy.exchanges(episode), form)
        return self._judged(task, plan, Execution(), seen, sent)

    def forget_elsewhere(self, episode: str) -> None:
        """Forget such an episode, once it is over."""
        self.proxy.forget(episode)

    def _judged(self, task: Task, plan: Plan, execution: Execution, seen: Observed, sent: Sequence[Sent]) -> Outcome:
        # A page that was taken before the last one is progress, and no answer to the form.
        answers = [item for item in sent if item.is_last or not item.is_accepted]
        num_taken = sum(item.is_accepted for item in sent)
        return outcomes.judge(
            Evidence(
                task=task,
                page=seen.page,
                plan=plan,
                execution=execution,
                submissions=[seen.received(item, task, self.ignored(task)) for item in answers],
                pages_reached=min(len(seen.page.titles), 1 + num_taken),
                defaults=seen.defaults,
            )
        )

    def _note_names(self, outcome: Outcome, form: Form, exchanges: Sequence[Exchange]) -> None:
        """Note under which name a wanted value was sent that no field received."""
        missing = {item.wanted: item.name for item in outcome.fields if item.wanted and not item.server}
        for exchange in exchanges if missing else ():
            for name, values in form.unread(exchange.fields).items():
                if values in missing:
                    self.sent_otherwise[missing[values]] = name

    def new_id(self) -> str:
        """A name under which the proxy keeps one rollout's exchanges."""
        return f"f{next(self._numbers)}"

    async def load(self, tab: Tab, path: str, rollout_id: str) -> None:
        """Load a page for a rollout."""
        await self.vendor(tab)
        await tab.goto(self.proxy.url(rollout_id, path))

    async def vendor(self, tab: Tab) -> None:
        """Give a tab the external assets that the user keeps."""
        if self.settings.vendored is not None and tab not in self._routed:
            await tab.context.route(self.pool.foreign, self._give_vendored)
            self._routed.add(tab)

    def _broke_at(self, rollout_id: str) -> str:
        """What the application said to the last thing it was sent, where that was an error of its own; else ""."""
        sent = [item for item in self.proxy.exchanges(rollout_id) if item.method != "GET"]
        return f"the application answered {sent[-1].status}" if sent and sent[-1].status >= 500 else ""

    def _presses(self, rollout_id: str, form: Form) -> Presses:
        async def answered() -> None:
            if not await self.proxy.settled(rollout_id, lambda item: is_form(item, form, presses.first)):
                raise EnvironmentFaultError("the application did not answer the form in time")

        presses = Presses(num_requests=lambda: self.proxy.num_requests(rollout_id), answered=answered)
        return presses

    def _server_view(self, rollout_id: str, form: Form, presses: Presses, *, takes_errors: bool) -> ServerView:
        def sent() -> list[Sent]:
            return submissions(self.proxy.exchanges(rollout_id), form, pressed_after=presses.first)

        return ServerView(
            is_accepted=lambda: any(item.is_accepted and item.is_last for item in sent()),
            rejections=lambda: [item.complaints for item in sent() if not item.is_accepted],
            injected=lambda: self._broke_at(rollout_id) if takes_errors else "",
            presses=presses,
        )

    async def _give_vendored(self, route: Route) -> None:
        """A file that the user keeps, or nothing: no request leaves."""
        assert self.settings.vendored is not None
        parts = urlsplit(route.request.url)
        path = (self.settings.vendored / parts.netloc / parts.path.lstrip("/")).resolve()
        if not path.is_relative_to(self.settings.vendored.resolve()) or not path.is_file():
            self.refused[route.request.url] = None
            await route.abort("addressunreachable")
            return
        headers = {"Access-Control-Allow-Origin": "*"}
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        await route.fulfill(body=path.read_bytes(), content_type=kind, headers=headers)
