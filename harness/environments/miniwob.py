"""MiniWoB++ (Shi et al. 2017; Liu et al. 2018) from the PyPI package `miniwob`: its form-like tasks as tasks of ours.

The package's HTML is served unchanged on loopback, one page an episode. The random numbers are seeded by the page's own
`Math.seedrandom`, the episode is started by the page's own `core`, and its raw reward (no time penalty) is the truth.
Controls without an HTML name get one once the episode stands, and boxes without a label their id for one, since refs
are resolved by name.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Control, Fault, FieldResult, GoldField, Outcome, Page, Task
from dllm_rl.registry import register
from harness.browser import NUM_ATTEMPTS, Attempt, EnvironmentFaultError, Tab, attempts, attribute, isolation_named
from harness.environments.base import BrowserEnvironment, BrowserSettings
from harness.environments.miniwob_oracle import ORACLES
from harness.execute import Execution, ServerView, execute, executor_named
from harness.judge import outcome as outcomes
from harness.scout import Seen
from harness.sites.loopback import LoopbackServer

START_SECONDS = 5.0
DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120}
SEEDS_A_SPLIT = 1_000_000
REWARD = GoldField(name="reward", kind="number", wanted=("1",), label="reward of the task's own core")
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
        for split in self.counts:
            if split not in DEFAULT_COUNTS:
                raise unknown_name("split", split, DEFAULT_COUNTS)
        if self.isolation == "arena":
            raise ConfigError("isolation is arena; MiniWoB++ pages run in a tab of their own: context, origin or page.")


@register("environment", "miniwob")
class MiniWobEnvironment(BrowserEnvironment[MiniWobSettings]):
    """The form-like tasks of MiniWoB++. The page itself says the instruction: `Page.instruction`."""

    splits: ClassVar[tuple[str, ...]] = tuple(DEFAULT_COUNTS)

    def __init__(self, settings: MiniWobSettings | None = None) -> None:
        super().__init__(settings or MiniWobSettings())
        self.server = LoopbackServer(Starlette())
        self._numbers = itertools.count(1)
        self._seen: dict[str, Page] = {}

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

    async def observe(self, task: Task) -> Page:
        """Instruction and controls of an episode, as they stand at its start."""
        if task.site not in self._seen:

            async def once(attempt: Attempt) -> Page:
                async with self.pool.tab(self.settings.isolation, is_fresh=attempt.is_fresh) as tab:
                    return await self._start(tab, task)

            self._seen[task.site] = await attempts(self.pool, once)
        return self._seen[task.site]

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Run a plan once. Its outcome is a success where the page's own reward is 1."""
        mode = isolation_named(isolation or self.settings.isolation)
        acting = executor_named(executor or self.settings.executor)
        page = Page(titles=("",), controls=())

        async def once(attempt: Attempt) -> Outcome:
            nonlocal page
            async with self.pool.tab(mode, is_fresh=attempt.is_fresh) as tab:
                page = await self._start(tab, task)
                server = ServerView(is_accepted=lambda: False, rejections=list)
                with attribute("execute"):
                    execution = await execute(tab, acting, parse_plan(plan), page, server)
                    work = tab.page.evaluate(RESULT)
                    is_done, reward = await tab.within(work, START_SECONDS, is_action=False)
            return _outcome(task, plan, execution, is_done=is_done, reward=reward, num_attempts=attempt.number)

        try:
            return await attempts(self.pool, once)
        except EnvironmentFaultError as fault:
            return outcomes.lost(task, page, str(fault), NUM_ATTEMPTS)

    def gold_plan(self, task: Task, page: Page) -> str:
        """The plan that does what the page asks for."""
        return ORACLES[_name_and_seed(task)[0]](page.instruction, page)

    async def _start(self, tab: Tab, task: Task) -> Page:
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
        return Page(titles=(seen["title"],), controls=tuple(controls), instruction=query)


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


def _outcome(
    task: Task, plan: str, execution: Execution, *, is_done: bool, reward: float, num_attempts: int
) -> Outcome:
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
        num_attempts=num_attempts,
        seconds=execution.seconds,
    )


def _html_folder() -> Path:
    found = importlib.util.find_spec("miniwob")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the package 'miniwob' is not installed. Install it: pip install 'dllm-rl[miniwob]'")
    return Path(found.submodule_search_locations[0]) / "html"
