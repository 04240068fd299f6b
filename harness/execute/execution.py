"""One plan on one loaded page, executed whole: the semantics that both executors share.

- Lines run in order; after a line that failed the next line runs.
- A malformed line is counted as malformed; it does nothing.
- A line fails where its ref is not one of the form's, its verb does not fit the control, its control stands on another
  page than the present one ("wrong page"), is hidden, disabled, read-only or covered, the option does not exist, or the
  control shows another value afterwards. A number or date field refuses any other text, and a field of one line
  refuses a line break; both keep the value they had.
- What a page has under way (a timer that ends soon, a request, a change of style) is waited for, a second at most: by
  a line whose control is not there, hidden, disabled, read-only, covered or without the option; and by every click and
  key, before it hands over what stands there. A page that has nothing under way gets two frames.
- `select` on a control of several values adds the option. `check`, `uncheck` and `choose` of what is so already are ok.
- A click that the browser's own validation stops has failed, with its messages.
- When a click leads to another document, the next line runs there. Once the server has accepted a submission, every
  further line is skipped, whatever it is.
- A click that leads out of the site has failed, and all lines after it are skipped: there is no way back. A form that
  was taken may lead there.
- A form that would open a window is answered in the plan's own. An answer that is not a document leaves the page as it
  is.
- A line on which a deadline passes although the page answers has failed, and all after it are skipped. So has one at
  which the page broke in every attempt before (`suspect`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dllm_rl.errors import HarnessError
from dllm_rl.records.plan import Plan, render_action
from dllm_rl.records.tasks import ActionResult, Observation
from harness.browser import AgentDeadlineError, AgentLeftError, EnvironmentFaultError, Tab
from harness.execute.executors import Executor, Report, look, settle
from harness.execute.presses import Presses
from harness.execute.steps import Step, make_steps, page_keys, sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """What the server says about this rollout so far, asked after every load.

    Attributes:
        is_accepted: Whether it accepted the form.
        rejections: Error messages of each refused submission.
        injected: Message of its last answer if that was a difficulty of the task's own, else "".
        presses: What scripts send once something was pressed; None where they send no form.
    """

    is_accepted: Callable[[], bool]
    rejections: Callable[[], Sequence[tuple[str, ...]]]
    injected: Callable[[], str] = lambda: ""
    presses: Presses | None = None


@dataclass(slots=True, kw_only=True)
class Execution:
    """Result of executing a plan.

    Attributes:
        actions: One result for each line.
        values: Form data as last seen, by field name, over all pages.
        validity_errors: Messages of the browser's own validation.
        dialogs: Texts of dialogs.
        seconds: Time by phase.
    """

    actions: tuple[ActionResult, ...] = ()
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    validity_errors: tuple[str, ...] = ()
    dialogs: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


async def execute(
    tab: Tab,
    executor: Executor,
    plan: Plan,
    page: Observation,
    server: ServerView,
    files: Mapping[str, bytes] = MappingProxyType({}),
    suspect: int | None = None,
) -> Execution:
    """Run the plan on the tab's loaded start page. Raises EnvironmentFaultError or HarnessError, not for the plan.

    Args:
        tab: The tab.
        executor: How actions are carried out.
        plan: The plan.
        page: The scouted page.
        server: What the server says meanwhile.
        files: By name, what `upload` may hand over.
        suspect: The line at which all earlier attempts were lost: if this one is too, the plan is to blame.
    """
    run = Run(tab=tab, executor=executor, pages=page_keys(page), server=server, suspect=suspect)
    steps = make_steps(plan, page, files)
    await run.all([step for step in steps if step.refusal is None])
    return run.execution(plan, steps)


@dataclass(slots=True, kw_only=True)
class Run:
    """A plan that is being executed.

    Attributes:
        results: A note record for each line that has run.
    """

    tab: Tab
    executor: Executor
    pages: list[dict[str, Any]]
    server: ServerView
    suspect: int | None = None
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stopped_at: int | None = None
    num_rejections: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"act": 0.0, "navigate": 0.0})

    async def all(self, steps: list[Step]) -> None:
        """Run the steps document by document; read the last document unless the submission was accepted there."""
        is_read, last = False, 0
        while steps and self.stopped_at is None:
            with self._blaming(steps[0].action.line):
                report = await self._perform(steps)
                last = steps[len(report.results) - 1].action.line
                steps = steps[len(report.results) :]
                is_read = not report.is_leaving
                if report.is_leaving:
                    with self._blaming(last):
                        await self._arrive(last)
        if self.server.presses is not None and last and not self.server.is_accepted():
            is_read = False
            with self._blaming(last):
                await self._answered(self.server.presses, last)
        has_page = self.stopped_at is None or self.results[self.stopped_at]["note"] == "deadline"
        if has_page and not is_read and not self.server.is_accepted():
            with self._blaming(last):
                self._read(await look(self.tab, self.pages))

    async def _answered(self, presses: Presses, line: int) -> None:
        """Wait for what the page still does by script once the plan is over: send the form, or load a document."""
        if self.stopped_at is None and await settle(self.tab):
            await self._arrive(line)
        if not self.server.is_accepted():
            await presses.answered()

    @contextmanager
    def _blaming(self, line: int) -> Iterator[None]:
        """Stop at this line if what is raised inside is the plan's doing."""
        try:
            yield
        except AgentDeadlineError:
            self._stop(line, "deadline")
        except AgentLeftError:
            self._stop(line, "left_site")
        except EnvironmentFaultError as fault:
            fault.line = line if fault.line is None else fault.line
            if fault.line != self.suspect:
                raise
            self._stop(line, "broken")

    async def _perform(self, steps: list[Step]) -> Report:
        started = time.perf_counter()
        self.tab.expect_load()
        report = await self._acted(steps)
        if not report.results:
            raise HarnessError(f"the {self.executor.name} executor consumed no step of {len(steps)}")
        self._read(report)
        for step, result in zip(steps, report.results, strict=False):
            self.results[step.action.line] = result
        self.seconds["act"] += time.perf_counter() - started - report.waited
        if report.waited:
            self.seconds["wait"] = self.seconds.get("wait", 0.0) + report.waited
        return report

    async def _acted(self, steps: list[Step]) -> Report:
        """Let the executor act. A press that failed is none."""
        presses = self.server.presses
        if presses is None or presses.first is not None:
            return await self.executor.perform(self.tab, steps, self.pages)
        report = await self.executor.perform(self.tab, steps, self.pages, presses.note)
        if report.results and report.results[-1]["status"] == "failed":
            presses.first = None
        return report

    def _read(self, report: Report) -> None:
        """Take over a report. It also completes the note on the click that led to this document."""
        for result in self.results.values():
            if result["note"] == "page" and "here" not in result:
                result |= {"here": report.here, "title": report.title}
        # For the present page, what it shows now counts, not what it showed before a field was hidden.
        if report.here:
            own = {key.partition(" ")[2] for key in self.pages[report.here - 1]["keys"]}
            self.values = {name: values for name, values in self.values.items() if name not in own}
        self.values |= {name: tuple(values) for name, values in report.values.items()}

    async def _arrive(self, line: int) -> None:
        started = time.perf_counter()
        try:
            has_come = await self.tab.loaded(is_injected=lambda: bool(self.server.injected()))
        except AgentLeftError:
            # A form that was taken may lead on to somebody else.
            if not self.server.is_accepted():
                raise
            has_come = True
        self.seconds["navigate"] += time.perf_counter() - started
        if not has_come:
            await self.tab.call("stay", seconds=2.0)
        rejections = self.server.rejections()
        if self.server.is_accepted():
            self.results[line] = {"status": "ok", "note": "submitted"}
            self.stopped_at = line
        elif self.server.injected():
            self.results[line] = {"status": "ok", "note": "busy", "message": self.server.injected()}
        elif len(rejections) > self.num_rejections:
            self.num_rejections = len(rejections)
            self.results[line] = {"status": "ok", "note": "rejected", "messages": list(rejections[-1])}
        else:
            self.results[line] = {"status": "ok", "note": "page" if has_come else "no_change"}

    def _stop(self, line: int, note: str) -> None:
        self.results[line] = {"status": "failed", "note": note}
        self.stopped_at = line

    def execution(self, plan: Plan, steps: Sequence[Step]) -> Execution:
        """Put the results of all lines in order, malformed and skipped ones included."""
        actions = [self._action_result(step) for step in steps]
        actions += [
            ActionResult(line=error.line, text=error.text, status="malformed", note=str(error)) for error in plan.errors
        ]
        messages = [
            f"{item['name']}: {item['message']}"
            for result in self.results.values()
            if result["note"] == "validation"
            for item in result["messages"]
        ]
        return Execution(
            actions=tuple(sorted(actions, key=lambda item: item.line)),
            values=self.values,
            validity_errors=tuple(dict.fromkeys(messages)),
            dialogs=tuple(self.tab.dialogs),
            seconds=self.seconds,
        )

    def _action_result(self, step: Step) -> ActionResult:
        action = step.action
        result = step.refusal or self.results.get(action.line)
        if self.stopped_at is not None and action.line > self.stopped_at:
            result = {"status": "skipped", "note": "skipped", "line": self.stopped_at}
        assert result is not None
        return ActionResult(
            line=action.line,
            text=render_action(action),
            status=result["status"],
            note=sentence(action, result),
        )
