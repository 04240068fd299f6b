"""One episode on an errand's site: a context of its own, its turns, and what becomes of what the environment loses.

A turn that the environment loses is tried again with the whole episode before it, on a fresh site: the plans of the
earlier turns are run again and must show the same pages. So no policy is asked twice. Where the server has accepted
something, nothing is run again, and the episode is lost.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dllm_rl.episodes import Episode, Reply
from dllm_rl.records.plan import Plan, parse_turn
from dllm_rl.records.rollout import squeezed
from dllm_rl.records.tasks import Ending, Observation, Outcome, Passage, Task
from harness.browser import NUM_ATTEMPTS, EnvironmentFaultError, Tab, attribute
from harness.errands import ANSWER, make_errand
from harness.execute import Executor, Place, ServerView, TurnResult, execute_turn
from harness.in_page import HOLD_TIME
from harness.judge import Evidence
from harness.judge import outcome as outcomes
from harness.scout import Seen
from harness.sites.server import Submission

if TYPE_CHECKING:
    from harness.environments.episodes import EpisodeEnvironment

# How long a turn may take on an idle machine; every action in it has a deadline of its own.
TURN_SECONDS = 30.0
SEE_SECONDS = 2.0
# Turns in a row without a line that is an action, after which an episode ends.
MAX_UNREADABLE = 3


@dataclass(slots=True, kw_only=True)
class _Visit:
    """What one attempt at an episode has come to.

    Attributes:
        id: Under which the server keeps its state.
        tab: The tab.
        holding: What gives the tab back.
        page: The page as it is now.
        numbers: Numbers of the pages by address.
        values: Form data as last seen.
        answer: What `done` said; None as long as it was not said.
        num_unreadable: Turns in a row without an action.
        takes_pictures: Whether `see` takes one.
    """

    id: str
    tab: Tab
    holding: AsyncExitStack
    page: Observation
    numbers: dict[str, int] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    answer: str | None = None
    num_unreadable: int = 0
    takes_pictures: bool = False

    async def see(self) -> Observation:
        """Read the page as it is now. A page keeps its number, and so its controls keep their refs."""
        seen = await self.tab.call("view", seconds=SEE_SECONDS)
        number = self.numbers.setdefault(seen["address"], len(self.numbers) + 1)
        page = _observation(seen, number)
        if not self.takes_pictures:
            return page
        with attribute("picture"):
            picture = await self.tab.page.screenshot(timeout=self.tab.pace.seconds(SEE_SECONDS) * 1000)
        return replace(page, picture=base64.b64encode(picture).decode())


def _observation(seen: dict[str, Any], number: int) -> Observation:
    def ref(place: int) -> str:
        return f"p{number}.e{place}" if place else ""

    controls = []
    for record in seen["controls"]:
        place = record.pop("number")
        controls.append(Seen.read(record).control(ref(place), None))
    shown = {control.ref for control in controls}
    passages = ((item["text"], ref(item["before"])) for item in seen["passages"])
    return Observation(
        titles=(*[""] * (number - 1), seen["title"]),
        controls=tuple(controls),
        # What stands before a control below the window stands at the end of it.
        passages=tuple(Passage(text=text, before=before if before in shown else "") for text, before in passages),
        errors=tuple(seen["errors"]),
        num_above=seen["above"],
        num_below=seen["below"],
    )


class BrowserEpisode(Episode):
    """One run of an errand in the browser."""

    def __init__(self, environment: EpisodeEnvironment, task: Task, executor: Executor) -> None:
        self.environment, self.task, self.executor = environment, task, executor
        self.errand = make_errand(task.site)
        self._plans: list[str] = []
        self._pages: list[Observation] = []
        self._visit: _Visit | None = None
        self._num_attempts = 1

    async def start(self) -> Reply:
        """Open the first page."""

        async def opened(visit: _Visit) -> Reply:
            return Reply(observation=visit.page, outcome=Outcome(task_id=self.task.id))

        return await self._attempted(opened)

    async def step(self, plan: str) -> Reply:
        """Run a turn; a lost one is run again with the whole episode, unless something was accepted."""
        self._plans.append(squeezed(plan))
        return await self._attempted(self._last_turn)

    async def close(self) -> None:
        """Close the context, and forget what the server knows."""
        visit, self._visit = self._visit, None
        if visit is not None:
            await visit.holding.aclose()
            self.environment.server.forget(visit.id)

    async def _attempted(self, once: Callable[[_Visit], Awaitable[Reply]]) -> Reply:
        """Do this until the environment does not lose it; lost for good, the reply says so."""
        async with self.environment.places:
            while True:
                try:
                    seconds = TURN_SECONDS * (1 if self._visit else 1 + len(self._plans))
                    async with asyncio.timeout(self.environment.pool.pace.seconds(seconds)):
                        visit = self._visit = self._visit or await self._restored()
                        reply = await once(visit)
                    if reply.observation is not None:
                        self._pages[len(self._plans) :] = [reply.observation]
                    return reply
                except TimeoutError:
                    fault = EnvironmentFaultError("the turn did not end in time")
                except EnvironmentFaultError as error:
                    fault = error
                if await self._is_given_up(fault):
                    return self._lost(fault)

    async def _is_given_up(self, fault: EnvironmentFaultError) -> bool:
        """Close what is left of the attempt; whether it was the last one."""
        visit, self._visit = self._visit, None
        has_accepted = False
        if visit is not None:
            has_accepted = any(item.accepted for item in self.environment.server.submissions(visit.id))
            with contextlib.suppress(EnvironmentFaultError):
                # The fault passes through the pool's own hands, which note the browser that it happened in.
                await visit.holding.__aexit__(type(fault), fault, fault.__traceback__)
            self.environment.server.forget(visit.id)
        if has_accepted or self._num_attempts == NUM_ATTEMPTS:
            return True
        self._num_attempts += 1
        if self._num_attempts == NUM_ATTEMPTS:
            self.environment.pool.retire(fault.generation)
        return False

    def _lost(self, fault: EnvironmentFaultError) -> Reply:
        outcome = outcomes.lost(self.task, self._path_page, str(fault), self._num_attempts)
        return Reply(observation=None, outcome=replace(outcome, ending=Ending.LOST))

    async def _restored(self) -> _Visit:
        """Open the site anew and run the turns before the present one again."""
        visit = self._visit = await self._opened()
        for number, plan in enumerate(self._plans):
            if visit.page != self._pages[number]:
                raise EnvironmentFaultError("the episode, run again, came to another page")
            if number + 1 < len(self._plans):
                await self._turn(visit, plan)
        return visit

    async def _opened(self) -> _Visit:
        environment, holding = self.environment, AsyncExitStack()
        episode_id = f"e{next(environment.ids)}"
        is_guarded = self.executor.name == "trusted"
        try:
            tab = await holding.enter_async_context(
                environment.pool.tab("context", is_fresh=self._num_attempts > 1, is_guarded=is_guarded)
            )
            visit = _Visit(
                id=episode_id,
                tab=tab,
                holding=holding,
                page=Observation(titles=(), controls=()),
                takes_pictures=environment.settings.takes_pictures,
            )
            with attribute("open"):
                await tab.context.add_init_script(HOLD_TIME)
            await tab.goto(environment.server.start_url(self.errand.key, episode_id))
            visit.page = await visit.see()
        except BaseException as error:
            await holding.__aexit__(type(error), error, error.__traceback__)
            environment.server.forget(episode_id)
            raise
        return visit

    async def _last_turn(self, visit: _Visit) -> Reply:
        return await self._turn(visit, self._plans[-1])

    async def _turn(self, visit: _Visit, text: str) -> Reply:
        plan = parse_turn(text)
        server = self.environment.server
        place = Place(
            tab=visit.tab,
            page=visit.page,
            see=visit.see,
            server=ServerView(
                is_accepted=lambda: any(item.accepted for item in server.submissions(visit.id)),
                rejections=lambda: [item.errors for item in server.submissions(visit.id) if not item.accepted],
                injected=lambda: server.injected(visit.id),
            ),
        )
        with attribute("execute"):
            result = await execute_turn(place, self.executor, plan, self.environment.settings.max_actions)
        visit.values |= result.execution.values
        visit.answer = result.answer
        visit.num_unreadable = 0 if plan.actions else visit.num_unreadable + 1
        visit.page = result.observation or visit.page
        outcome = self._judged(visit, plan, result)
        ending = self._ending(visit, outcome, result)
        return Reply(observation=None if ending else result.observation, outcome=replace(outcome, ending=ending))

    def _ending(self, visit: _Visit, outcome: Outcome, result: TurnResult) -> Ending | None:
        """How the episode ended with this turn; None where it goes on."""
        if result.answer is not None:
            return Ending.DONE
        if outcome.is_submitted:
            return Ending.FINISHED
        if result.has_left:
            return Ending.LEFT
        if result.has_stalled:
            return Ending.DEADLINE
        if visit.num_unreadable >= MAX_UNREADABLE:
            return Ending.UNREADABLE
        return Ending.TURNS if len(self._plans) >= self.environment.settings.max_turns else None

    def _judged(self, visit: _Visit, plan: Plan, result: TurnResult) -> Outcome:
        """What the episode has come to so far."""
        seen = set(self.environment.server.seen(visit.id))
        outcome = outcomes.judge(
            Evidence(
                task=self.task,
                page=self._path_page,
                plan=plan,
                execution=replace(result.execution, values=dict(visit.values)),
                submissions=self._received(visit),
                pages_reached=len(seen & set(self.errand.path)),
                defaults=self.errand.defaults,
            )
        )
        return replace(outcome, num_attempts=self._num_attempts)

    def _received(self, visit: _Visit) -> tuple[Submission, ...]:
        """What the server received, and the answer where one is asked for."""
        received = self.environment.server.submissions(visit.id)
        if not self.errand.answer or visit.answer is None:
            return received
        given = {ANSWER: (visit.answer,) if visit.answer else ()}
        return (*received, Submission(accepted=True, fields={**self.errand.defaults, **given}))

    @property
    def _path_page(self) -> Observation:
        """How long the way to the goal is, for the outcome."""
        return Observation(titles=tuple(dict.fromkeys(self.errand.path)), controls=())
