"""MiniWoB++ (Shi et al. 2017; Liu et al. 2018) from the PyPI package `miniwob`: its form-like tasks as tasks of ours.

The package's HTML is served unchanged on loopback, one page an episode. The random numbers are seeded by the page's own
`Math.seedrandom`, the episode is started by the page's own `core`, and its raw reward (no time penalty) is the truth.
Controls without an HTML name get one once the episode has started, and boxes without a label get their id
as label, since refs are resolved by name.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.plan import Action, Verb, parse_plan, render_plan
from dllm_rl.records.tasks import Control, Fault, FieldResult, GoldField, Observation, Outcome, Task
from dllm_rl.registry import register
from harness.browser import Attempt, Tab, attribute, isolation_named
from harness.environments.base import IN_A_TAB, BrowserEnvironment, BrowserSettings, check_counts
from harness.execute import Execution, ServerView, execute, executor_named
from harness.scout import Seen
from harness.sites.server import LoopbackServer

Oracle = Callable[[str, Observation], str]


def _of(page: Observation, *kinds: str) -> list[Control]:
    return [control for control in page.controls if control.kind in kinds]


def _step(verb: Verb, control: Control, value: str | None = None) -> Action:
    return Action(verb=verb, ref=control.ref, value=value)


def _plan(*steps: Action) -> str:
    return render_plan(steps)


def _quoted(query: str) -> list[str]:
    return re.findall(r'"([^"]*)"', query)


def _named(page: Observation, *names: str) -> list[Control]:
    return [next(control for control in page.controls if control.name == name) for name in names]


def _listed(query: str) -> list[str]:
    found = re.fullmatch(r"Select (.*) and click Submit\.", query)
    return [] if found is None or found[1] == "nothing" else found[1].split(", ")


def _fill_all(values: Callable[[str], list[str]]) -> Oracle:
    def oracle(query: str, page: Observation) -> str:
        fields, wanted = _of(page, "text", "date"), values(query)
        fills = zip(fields, wanted if len(wanted) == len(fields) else wanted * len(fields), strict=True)
        return _plan(*(_step("fill", field, value) for field, value in fills), _step("submit", _of(page, "button")[-1]))

    return oracle


def _in_case(query: str) -> list[str]:
    (text,) = _quoted(query)
    return [text.upper() if "upper case" in query else text.lower()]


def _date(query: str) -> list[str]:
    (text,) = re.findall(r"\d\d/\d\d/\d{4}", query)
    return [datetime.strptime(text, "%m/%d/%Y").strftime("%Y-%m-%d")]


def _time(query: str) -> list[str]:
    (text,) = re.findall(r"\d+:\d\d [AP]M", query.replace("\u202f", " "))
    return [datetime.strptime(text, "%I:%M %p").strftime("%H:%M")]


def _choose_list(query: str, page: Observation) -> str:
    wanted = query.removeprefix("Select ").removesuffix(" from the list and click Submit.")
    return _plan(_step("select", _of(page, "select")[0], wanted), _step("submit", _of(page, "button")[-1]))


def _check_listed(query: str, page: Observation) -> str:
    boxes = _named(page, *_listed(query))
    return _plan(*(_step("check", box) for box in boxes), _step("submit", _of(page, "button")[-1]))


def _choose_listed(query: str, page: Observation) -> str:
    (option,) = _named(page, *_listed(query))
    return _plan(_step("choose", option), _step("submit", _of(page, "button")[-1]))


def _click_buttons(*names: str) -> Oracle:
    return lambda query, page: _plan(*(_step("click", button) for button in _named(page, *names)))


def _click_quoted(query: str, page: Observation) -> str:
    names = ["Close" if name == "x" else name for name in _quoted(query)]
    return _plan(*(_step("click", button) for button in _named(page, *names)))


def _ordinals(query: str) -> list[int]:
    return [int(number) - 1 for number in re.findall(r"(\d+)(?:st|nd|rd|th)", query)]


def _focus(query: str, page: Observation) -> str:
    return _plan(_step("click", _of(page, "text")[_ordinals(query)[0]]))


def _choose_and_enter(query: str, page: Observation) -> str:
    radio, box = _ordinals(query)
    return _plan(
        _step("choose", _of(page, "radio")[radio]),
        _step("fill", _of(page, "text", "number")[box], _quoted(query)[0]),
        _step("submit", _of(page, "button")[-1]),
    )


def _spin(query: str, page: Observation) -> str:
    (number,) = re.findall(r"Select (-?\d+)", query)
    # The page forbids to type into it.
    key = "ArrowUp" if int(number) > 0 else "ArrowDown"
    presses = [_step("press", _of(page, "text")[0], key)] * abs(int(number))
    return _plan(*presses, _step("submit", _of(page, "button")[-1]))


ORACLES: dict[str, Oracle] = {
    "enter-text": _fill_all(_quoted),
    "enter-text-2": _fill_all(_in_case),
    "enter-text-dynamic": _fill_all(_quoted),
    "enter-password": _fill_all(_quoted),
    "login-user": _fill_all(_quoted),
    "enter-date": _fill_all(_date),
    "enter-time": _fill_all(_time),
    "choose-list": _choose_list,
    "click-checkboxes": _check_listed,
    "click-checkboxes-large": _check_listed,
    "click-checkboxes-transfer": _check_listed,
    "click-option": _choose_listed,
    "click-test": _click_buttons("Click Me!"),
    "click-test-2": _click_buttons("ONE"),
    "click-test-transfer": _click_buttons("ONE"),
    "click-button": _click_quoted,
    "click-button-sequence": _click_buttons("ONE", "TWO"),
    "click-dialog-2": _click_quoted,
    "focus-text-2": _focus,
    "form-sequence-2": _choose_and_enter,
    "use-spinner": _spin,
    "unicode-test": _click_quoted,
}


START_SECONDS = 5.0
DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120}
SEEDS_A_SPLIT = 1_000_000
REWARD = GoldField(name="reward", kind="number", wanted=("1",), label="reward of the task's own core")
# What is known of an episode before it stands: that it is one page.
UNSEEN = Observation(titles=("",), controls=())
# The clock of an episode would run out on a loaded machine, so it is set to a day.
START = """(seed) => {
  Math.seedrandom(seed);
  core.EPISODE_MAX_TIME = 86400000;
  core.startEpisodeReal();
  document.querySelectorAll('input, textarea, select, button').forEach((element, at) => {
    if (!element.name) element.name = element.id || `control${at}`;
    const isBox = element.matches('[type=radio], [type=checkbox]');
    if (isBox && !element.labels.length) element.ariaLabel = element.id || `${at}`;
  });
}"""
RESULT = "() => [Boolean(WOB_DONE_GLOBAL), Number(WOB_RAW_REWARD_GLOBAL)]"
QUERY = "() => core.getUtterance()"


@dataclass(frozen=True, slots=True, kw_only=True)
class MiniWobSettings(BrowserSettings):
    """Settings of the MiniWoB++ environment.

    Attributes:
        names: Names of tasks, such as "enter-text"; None for all that the oracle can solve.
        counts: Number of tasks by split; each split has seeds of its own.
    """

    names: tuple[str, ...] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        BrowserSettings.__post_init__(self)
        for name in self.names or ():
            if name not in ORACLES:
                raise unknown_name("MiniWoB++ task", name, ORACLES)
        check_counts(self.counts, DEFAULT_COUNTS)
        if self.isolation == "arena":
            raise ConfigError("isolation is arena; MiniWoB++ pages run in a tab of their own: context, origin or page.")


@register("environment", "miniwob")
class MiniWobEnvironment(BrowserEnvironment[MiniWobSettings]):
    """The form-like tasks of MiniWoB++. The page itself says the instruction: `Observation.instruction`."""

    splits: ClassVar[tuple[str, ...]] = tuple(DEFAULT_COUNTS)
    isolations: ClassVar[tuple[str, ...]] = IN_A_TAB

    def __init__(self, settings: MiniWobSettings | None = None) -> None:
        super().__init__(settings or MiniWobSettings())
        self.server = LoopbackServer(Starlette())
        self._numbers = itertools.count(1)
        self._seen: dict[str, Observation] = {}

    async def open(self) -> None:
        """Serve the package's pages. Raises ConfigError where it is not installed."""
        if not self.server.app.routes:
            self.server.app.mount("/", StaticFiles(directory=_html_folder()))
        await self.server.start()

    async def close(self) -> None:
        """End the browser and the server."""
        await self.pool.close()
        await self.server.stop()

    def tasks(self, split: str) -> tuple[Task, ...]:
        """All tasks of a split: the names in turn, each with the split's next seed."""
        counts = {**DEFAULT_COUNTS, **self.settings.counts}
        return miniwob_tasks(split, self.settings.names or tuple(ORACLES), counts[split])

    async def observe(self, task: Task) -> Observation:
        """Instruction and controls of an episode, as they stand at its start."""
        if task.site not in self._seen:

            async def once(attempt: Attempt) -> Observation:
                async with self.pool.tab(self.settings.isolation, is_fresh=attempt.is_fresh) as tab:
                    return await self._start(tab, task)

            self._seen[task.site] = await self.pool.attempts(once)
        return self._seen[task.site]

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Run a plan once. Its outcome is a success where the page's own reward is 1."""
        mode = isolation_named(isolation or self.settings.isolation)
        acting = executor_named(executor or self.settings.executor)

        async def once(attempt: Attempt) -> Outcome:
            async with self.pool.tab(mode, is_fresh=attempt.is_fresh) as tab:
                page = await self._start(tab, task)
                server = ServerView(is_accepted=lambda: False, rejections=list)
                with attribute("execute"):
                    execution = await execute(tab, acting, parse_plan(plan), page, server)
                    work = tab.page.evaluate(RESULT)
                    is_done, reward = await tab.within(work, START_SECONDS, is_action=False)
            return _outcome(task, plan, execution, is_done=is_done, reward=reward)

        return await self.attempt(task, UNSEEN, once)

    def gold_plan(self, task: Task, observation: Observation) -> str:
        """The plan that does what the page asks for."""
        return ORACLES[_name_and_seed(task)[0]](observation.instruction, observation)

    async def _start(self, tab: Tab, task: Task) -> Observation:
        name, seed = _name_and_seed(task)
        # The number keeps a page that was left from being taken for the one that comes.
        await tab.goto(f"{self.server.base_url}/miniwob/{name}.html?{next(self._numbers)}")
        with attribute("start"):
            ready = "() => typeof core === 'object' && core.cover_div !== null"
            await tab.page.wait_for_function(ready, timeout=self.pool.pace.seconds(START_SECONDS) * 1000)
            await tab.within(tab.page.evaluate(START, seed), START_SECONDS, is_action=False)
            query = await tab.within(tab.page.evaluate(QUERY), START_SECONDS, is_action=False)
        seen = await tab.call("inventory", seconds=2.0)
        controls: list[Control] = [
            Seen.read(record).control(f"p1.e{at}", None) for at, record in enumerate(seen["controls"], start=1)
        ]
        return Observation(titles=(seen["title"],), controls=tuple(controls), instruction=query)


def miniwob_tasks(split: str, names: Sequence[str], count: int) -> tuple[Task, ...]:
    """Tasks of a split, the names in turn; no seed of a name is in two splits."""
    first_seed = list(DEFAULT_COUNTS).index(split) * SEEDS_A_SPLIT
    tasks = []
    for number in range(count):
        name, seed = names[number % len(names)], first_seed + number // len(names)
        task_id = f"{split}/miniwob-{name}-{seed}"
        tasks.append(Task(id=task_id, split=split, site=f"{name}?{seed}", instruction="", gold=(REWARD,)))
    return tuple(tasks)


def _name_and_seed(task: Task) -> tuple[str, str]:
    name, _, seed = task.site.partition("?")
    return name, seed


def _outcome(task: Task, plan: str, execution: Execution, *, is_done: bool, reward: float) -> Outcome:
    failed = [item for item in execution.actions if item.status in ("failed", "malformed")]
    result = FieldResult(
        name=REWARD.name,
        wanted=REWARD.wanted,
        server=(f"{reward:g}",) if is_done else None,
        dom=None,
        is_correct=is_done and reward == 1.0,
        is_default=False,
    )
    return Outcome(
        task_id=task.id,
        fault=Fault.AGENT if failed else Fault.NONE,
        fault_reason=f"line {failed[0].line}: {failed[0].note}" if failed else "",
        is_parsed=parse_plan(plan).is_parsed,
        is_submitted=is_done,
        fields=(result,),
        dialogs=execution.dialogs,
        actions=execution.actions,
        pages_reached=1,
        num_submissions=int(is_done),
        seconds=execution.seconds,
    )


def _html_folder() -> Path:
    found = importlib.util.find_spec("miniwob")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the package 'miniwob' is not installed. Install it: pip install 'dllm-rl[miniwob]'")
    return Path(found.submodule_search_locations[0]) / "html"
