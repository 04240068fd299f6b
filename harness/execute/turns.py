"""One turn of an episode: actions on the page as it is now, until one fails or the page changes.

Lines run in order, with the semantics of `harness.execute.execution`. The rest is skipped after a line that is
malformed or failed, after a new document, and after so many actions. Beside the verbs of the plan language there are
commands:

- `scroll down`, `scroll up` move the window by most of its height; at the end of the page they say so.
- `back` goes one page back. It fails on the first page, and where the page before is the answer to a form: a browser
  shows that again only by sending the form again.
- `wait` lets happen what the page has put off. Without it, time stands still.
- `note "..."` does nothing; it stays in the policy's notebook.
- `done`, or `done "..."` with an answer, ends the episode, and so the turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from dllm_rl.records.plan import COMMANDS, Action, ParseError, Plan
from dllm_rl.records.tasks import Observation
from harness.browser import Tab, attribute
from harness.execute.execution import Execution, Run, ServerView
from harness.execute.executors import Executor
from harness.execute.steps import Step, make_steps, page_keys

SECONDS = 2.0
See = Callable[[], Awaitable[Observation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnResult:
    """What a turn came to.

    Attributes:
        execution: Its lines, and the form data that were seen.
        observation: The page as it is now; None where the site was left.
        has_left: Whether an action led out of the site.
        has_stalled: Whether the page did not react to an action in time.
        answer: What `done` said; None where the turn has no `done` that was reached.
    """

    execution: Execution
    observation: Observation | None
    has_left: bool
    has_stalled: bool
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a turn is run.

    Attributes:
        tab: The tab.
        page: The page as the policy saw it.
        see: Reads the page as it is now.
        server: What the server says about this turn.
    """

    tab: Tab
    page: Observation
    see: See
    server: ServerView


async def execute_turn(place: Place, executor: Executor, plan: Plan, max_actions: int) -> TurnResult:
    """Run a turn. Raises EnvironmentFaultError or HarnessError, not for what the plan does."""
    run = _TurnRun(
        tab=place.tab,
        executor=executor,
        pages=page_keys(place.page),
        server=place.server,
        num_rejections=len(place.server.rejections()),
    )
    steps = _steps(plan, place, max_actions)
    await run.turn(steps, plan.errors)
    has_left = run.stopped_by("left_site")
    page = None if has_left else await place.see()
    if page is not None:
        run.name_page(page)
    reached = run.answer
    return TurnResult(
        execution=run.execution(plan, steps),
        observation=page,
        has_left=has_left,
        has_stalled=run.stopped_by("deadline"),
        answer=reached,
    )


def _steps(plan: Plan, place: Place, max_actions: int) -> tuple[Step, ...]:
    """Steps of a turn. A command has no control; what comes after so many actions is refused."""
    steps = make_steps(plan, place.page)
    own = (replace(step, refusal=None) if step.action.verb in COMMANDS else step for step in steps)
    too_many = {"status": "skipped", "note": "too_many", "limit": max_actions}
    return tuple(replace(step, refusal=too_many) if at >= max_actions else step for at, step in enumerate(own))


@dataclass(slots=True, kw_only=True)
class _TurnRun(Run):
    answer: str | None = None

    async def turn(self, steps: tuple[Step, ...], errors: tuple[ParseError, ...]) -> None:
        """Run lines until one stops the turn."""
        first_error = min((error.line for error in errors), default=None)
        for step in steps:
            line = step.action.line
            if first_error is not None and line > first_error:
                self.stopped_at = first_error
            if self.stopped_at is not None:
                return
            with self._blaming(line):
                if step.refusal is not None:
                    self.results[line] = step.refusal
                elif step.control is None:
                    await self._command(step.action)
                else:
                    await self._act(step)
            if self.results[line]["status"] != "ok":
                self.stopped_at = line

    async def _act(self, step: Step) -> None:
        report = await self._perform([step])
        if report.is_leaving:
            await self._leave(step.action.line)

    async def _leave(self, line: int) -> None:
        await self._arrive(line)
        if not self.server.is_accepted():
            await self.tab.note_answer()
        if self.results[line]["note"] != "no_change":
            self.stopped_at = line

    async def _command(self, action: Action) -> None:
        line = action.line
        if action.verb == "note":
            self.results[line] = {"status": "ok", "note": "noted"}
        elif action.verb == "done":
            self.answer, self.stopped_at = action.value or "", line
            self.results[line] = {"status": "ok", "note": "done"}
        elif action.verb == "scroll":
            has_moved = await self.tab.call("scrollPage", action.value, seconds=SECONDS)
            self.results[line] = {"status": "ok", "note": "scrolled" if has_moved else "page_ends"}
        elif action.verb == "wait":
            await self._wait(line)
        else:
            await self._back(line)

    async def _wait(self, line: int) -> None:
        self.tab.expect_load()
        passed = await self.tab.call("passTime", seconds=SECONDS, is_action=True)
        if passed["isLeaving"]:
            await self._leave(line)
        else:
            self.results[line] = {"status": "ok", "note": "waited" if passed["isChanged"] else "nothing_happened"}

    async def _back(self, line: int) -> None:
        if not (await self.tab.call("view", seconds=SECONDS))["canGoBack"]:
            self.results[line] = {"status": "failed", "note": "no_way_back"}
            return
        if await self.tab.leads_back_to_answer():
            self.results[line] = {"status": "failed", "note": "sent_before"}
            return
        self.tab.expect_load()
        with attribute("back"):
            await self.tab.page.go_back(wait_until="commit", timeout=self.tab.pace.seconds(SECONDS) * 1000)
        await self._leave(line)

    def stopped_by(self, note: str) -> bool:
        """Whether the line at which the turn stopped has this note."""
        return self.stopped_at in self.results and self.results[self.stopped_at]["note"] == note

    def name_page(self, page: Observation) -> None:
        """Say in the note on the line that led to another page which one it is."""
        for result in self.results.values():
            if result["note"] == "page":
                result |= {"here": len(page.titles), "title": page.title}
