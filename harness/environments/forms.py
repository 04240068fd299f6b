"""The form environment: tasks on the built-in sites, observed and run in real Chromium, judged by the server."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from dllm_rl.environment import OnResult, all_or_none
from dllm_rl.errors import HarnessError
from dllm_rl.records.plan import Plan, parse_plan
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.registry import register
from harness.browser import (
    NUM_ATTEMPTS,
    Attempt,
    EnvironmentFaultError,
    Isolation,
    TraceRecorder,
    attribute,
    isolation_named,
)
from harness.environments.base import BrowserEnvironment, FormSettings, Quarantine
from harness.execute import Execution, Executor, ServerView, execute, executor_named
from harness.judge import Audit, Evidence, Key, OutcomeCache, OutcomeStore, score_plan
from harness.judge import outcome as outcomes
from harness.scout import ScoutCache, default_cache_dir, harness_digest, scout
from harness.sites import OBSTACLES, Site, gold_plan, make_site, make_tasks, scout_answers, site_defaults
from harness.sites.rich import make_rich_tasks
from harness.sites.server import SiteServer
from harness.sites.values import offered_files

ROLLOUT_SECONDS = 60.0
# Of the user's cache folder.
_PROVEN_FILE = "proven_gold_plans.sqlite"


@register("environment", "forms")
class FormEnvironment(BrowserEnvironment[FormSettings]):
    """Forms of the built-in sites.

    Attributes:
        quarantine: Sites that kept failing, with the reason; their rollouts are lost without being run.
    """

    def __init__(self, settings: FormSettings | None = None) -> None:
        super().__init__(settings or FormSettings())
        self.server = SiteServer()
        self.quarantine = Quarantine()
        self.recorder = TraceRecorder(folder=Path(self.settings.trace_dir)) if self.settings.trace_dir else None
        self._folder = Path(self.settings.cache_dir or default_cache_dir())
        self._cache = ScoutCache(self._folder)
        self._tasks: dict[str, tuple[Task, ...]] = {}
        self._scouting: dict[str, asyncio.Lock] = {}
        self.audit = Audit(every=self.settings.audit_every)
        self._kept = OutcomeCache(self.audit) if self.settings.caches_outcomes else None
        self._chromium = ""
        self._ids = itertools.count(1)
        self._places = {mode: asyncio.Semaphore(self.settings.num_places(mode)) for mode in get_args(Isolation)}
        self._active: set[asyncio.Task[Any]] = set()
        self._is_open = False

    async def open(self) -> None:
        """Start the site server and the browser."""
        if not self._is_open:
            await self.server.start()
            self._is_open = True
        await self.pool.open()
        # Between two browsers the pool has none to ask.
        self._chromium = self.pool.version

    async def close(self) -> None:
        """Cancel what is still running, then end the browser and the server."""
        for item in self._active:
            item.cancel()
        await asyncio.gather(*self._active, return_exceptions=True)
        await self.pool.close()
        if self._kept is not None:
            self._kept.store.close()
        if self._is_open:
            self._is_open = False
            await self.server.stop()

    def tasks(self, split: str) -> tuple[Task, ...]:
        """All tasks of a split in a fixed order. Needs no browser."""
        if split not in self._tasks:
            self._tasks[split] = tasks_for(self.settings, split)
        return self._tasks[split]

    async def observe(self, task: Task) -> Observation:
        """The scouted page of the task's site, from memory, disk or, the first time, from the browser."""
        page = self._cache.get(task.site) or await self._scouted(task)
        return with_files(page, make_site(task.site))

    async def _scouted(self, task: Task) -> Observation:
        async with self._scouting.setdefault(task.site, asyncio.Lock()):
            page = self._cache.get(task.site) or await self._scout(task.site)
            self._cache.put(task.site, page)
            return page

    def forget_failures(self) -> None:
        """Give sites that kept failing another chance."""
        self.quarantine.forget()

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """The plan that does what the task asks for."""
        return gold_plan(task, observation)

    async def score(self, task: Task, plan: str) -> float:
        """Cheap score of an intermediate plan, without running it; the gold plan scores 1."""
        return score_plan(task, await self.observe(task), site_defaults(make_site(task.site)), plan)

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Run a plan once and judge it. What the environment loses is tried again: fresh page, then fresh browser."""
        wanted = isolation_named(isolation or self.settings.isolation)
        chosen = executor_named(executor or self.settings.executor)
        page = await self.observe(task)
        parsed = parse_plan(plan)
        if task.site in self.quarantine.reasons:
            return outcomes.lost(task, page, self.quarantine.reasons[task.site], num_attempts=0)

        async def once(attempt: Attempt) -> Outcome:
            # What an arena loses may be its neighbour's doing, so it is run again in a tab of its own.
            mode: Isolation = "page" if wanted == "arena" and attempt.is_fresh else wanted
            # A trace is one context's, so a recorded rollout has one of its own.
            mode = "context" if self.recorder else mode
            return await self._attempt(task, page, parsed, chosen, mode, is_fresh=attempt.is_fresh)

        async with self._place(wanted):
            result = await self.attempt(task, page, once)
        if result.is_valid:
            self.quarantine.served(task.site)
        else:
            self.quarantine.lost(task.site, result.fault_reason)
        return result

    async def run_many(
        self,
        pairs: Sequence[tuple[Task, str]],
        *,
        isolation: str | None = None,
        executor: str | None = None,
        on_result: OnResult | None = None,
    ) -> list[Outcome]:
        """Run several plans at a time. Outcomes are in the order of `pairs`; on_result(index, outcome) as they end."""
        cache = self._kept
        if cache is None and self.settings.shares_identical:
            cache = OutcomeCache(self.audit)

        async def one(index: int, task: Task, plan: str) -> Outcome:
            run = functools.partial(self._run_and_recheck, task, plan, isolation, executor)
            result = await (cache.get(self._key(task, plan, isolation, executor), run) if cache else run())
            if on_result:
                on_result(index, result)
            return result

        return await all_or_none(one(index, task, plan) for index, (task, plan) in enumerate(pairs))

    def keep_outcomes(self, file: Path) -> None:
        """Share outcomes with every process that is told the same file, where the settings want them kept."""
        if self.settings.caches_outcomes:
            self._kept = OutcomeCache(self.audit, OutcomeStore(file))

    async def prove(self, pairs: Sequence[tuple[Task, str]]) -> list[Outcome]:
        """Run gold plans, but for those that succeeded for this user before, with this harness and browser."""
        store = OutcomeStore(self._folder / _PROVEN_FILE)
        proven = OutcomeCache(self.audit, store, is_kept=lambda outcome: outcome.is_success)
        try:
            return await all_or_none(
                proven.get(self._key(task, plan, None, None), functools.partial(self.run, task, plan))
                for task, plan in pairs
            )
        finally:
            store.close()

    async def _run_and_recheck(self, task: Task, plan: str, isolation: str | None, executor: str | None) -> Outcome:
        """Run a plan; where the settings decide how, a sample is run as evaluation does it, too."""
        result = await self.run(task, plan, isolation=isolation, executor=executor)
        if isolation or executor or not result.is_valid or not self.settings.is_rechecked(task.id, plan):
            return result
        again = await self.run(task, plan, isolation="context", executor="trusted")
        if not again.is_valid:
            return result
        return replace(result, recheck="same" if verdict(again) == verdict(result) else "different")

    def _key(self, task: Task, plan: str, isolation: str | None, executor: str | None) -> Key:
        return Key(
            made_by=(f"forms {self.version}", harness_digest(), f"chromium {self._chromium}"),
            task=task,
            plan=parse_plan(plan),
            executor=executor or self.settings.executor,
            isolation="context" if self.recorder else isolation or self.settings.isolation,
        )

    @asynccontextmanager
    async def _place(self, isolation: Isolation) -> AsyncIterator[None]:
        """One of the places for work in the browser; who holds one is cancelled by `close`."""
        async with self._places[isolation]:
            current = asyncio.current_task()
            assert current is not None
            self._active.add(current)
            try:
                yield
            finally:
                self._active.discard(current)

    async def _attempt(
        self, task: Task, page: Observation, plan: Plan, executor: Executor, isolation: Isolation, *, is_fresh: bool
    ) -> Outcome:
        rollout_id = f"r{next(self._ids)}"
        server = ServerView(
            is_accepted=lambda: any(item.accepted for item in self.server.submissions(rollout_id)),
            rejections=lambda: [item.errors for item in self.server.submissions(rollout_id) if not item.accepted],
            injected=lambda: self.server.injected(rollout_id),
        )
        files = offered_files(make_site(task.site))
        try:
            async with asyncio.timeout(self.pool.pace.seconds(ROLLOUT_SECONDS)):
                # Final evaluation is the trusted executor's; training has the launch arguments alone to keep it in.
                is_guarded = executor.name == "trusted"
                async with self.pool.tab(isolation, is_fresh=is_fresh, is_guarded=is_guarded) as tab:
                    if self.recorder:
                        await self.recorder.start(tab)
                    started = time.perf_counter()
                    await tab.goto(self.server.start_url(task.site, rollout_id))
                    loaded = time.perf_counter() - started
                    with attribute("execute"):
                        execution = await execute(tab, executor, plan, page, server, files)
                    execution.seconds["load"] = loaded
                    result = self._judge(task, page, plan, execution, rollout_id)
                    if self.recorder:
                        await self.recorder.stop(tab, task, result)
            return result
        except TimeoutError:
            raise EnvironmentFaultError("the rollout did not end in time") from None
        finally:
            self.server.forget(rollout_id)

    def _judge(self, task: Task, page: Observation, plan: Plan, execution: Execution, rollout_id: str) -> Outcome:
        return outcomes.judge(
            Evidence(
                task=task,
                page=page,
                plan=plan,
                execution=execution,
                submissions=self.server.submissions(rollout_id),
                pages_reached=self.server.pages_reached(rollout_id),
                defaults=site_defaults(make_site(task.site)),
            )
        )

    async def _scout(self, site_key: str) -> Observation:
        ids: list[str] = []

        def new_start_url() -> str:
            ids.append(f"s{next(self._ids)}")
            return self.server.start_url(site_key, ids[-1])

        def is_injected() -> bool:
            return bool(self.server.injected(ids[-1]))

        site = make_site(site_key)
        answers, files = scout_answers(site), offered_files(site)

        async def once(attempt: Attempt) -> Observation:
            try:
                async with self.pool.tab("page", is_fresh=attempt.is_fresh) as tab:
                    return await scout(tab, new_start_url, answers, files, is_injected)
            finally:
                for rollout_id in ids:
                    self.server.forget(rollout_id)

        try:
            async with self._place("page"):
                return await self.pool.attempts(once)
        except EnvironmentFaultError as fault:
            message = f"site {site_key} could not be scouted in {NUM_ATTEMPTS} attempts: {fault}"
            raise HarnessError(message) from fault


def tasks_for(settings: FormSettings, split: str) -> tuple[Task, ...]:
    """The tasks of a split as the settings say; needs no browser."""
    if settings.world == "rich":
        return make_rich_tasks(
            split,
            count=settings.count(split),
            seed=settings.seed,
            dials=settings.dials,
            kinds=settings.kinds,
            sites_per_kind=settings.sites_per_kind,
            difficulties=settings.difficulties,
        )
    return make_tasks(
        split,
        count=settings.count(split),
        seed=settings.seed,
        size=settings.size,
        dials=settings.dials,
        kinds=settings.kinds,
        sites_per_kind=settings.sites_per_kind,
        obstacles=(settings.obstacles or OBSTACLES) if settings.design == "newer" else (),
    )


def with_files(page: Observation, site: Site) -> Observation:
    """A page with the files at hand named where they may be given, which no page can know."""
    offered = {item.name: item.texts for item in site.fields if item.spec.kind == "file"}
    if not offered:
        return page
    controls = (
        replace(control, options=offered[control.field]) if control.kind == "file" else control
        for control in page.controls
    )
    return replace(page, controls=tuple(controls))


def verdict(outcome: Outcome) -> tuple[Any, ...]:
    """All of an outcome that a reward reads, its feedback and timings left out."""
    right = tuple(item.is_correct for item in outcome.fields)
    counts = (outcome.pages_reached, outcome.num_submissions, outcome.errors_by_rejection)
    return outcome.is_submitted, outcome.is_clean, right, counts
