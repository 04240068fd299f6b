"""MiniWoB++ (Shi et al. 2017; Liu et al. 2018) from the PyPI package `miniwob`: its form-like tasks as tasks of ours.

The package's HTML is served unchanged on loopback, one page an episode. The random numbers are seeded by the page's own
`Math.seedrandom`, the episode is started by the page's own `core`, and its raw reward (no time penalty) is the truth.
Controls without an HTML name get one once the episode stands, and boxes without a label their id for one, since refs
are resolved by name.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.plan import parse_plan
from dllm_rl.tasks import Control, Fault, FieldResult, GoldField, Outcome, Page, Task
from harness import outcome as outcomes
from harness.adapters.miniwob_oracle import ORACLES
from harness.attempts import NUM_ATTEMPTS, Attempt, attempts
from harness.browser import BrowserPool, Isolation
from harness.environment import EXECUTORS
from harness.executor import ExecutorName
from harness.faults import EnvironmentFaultError, attribute
from harness.loopback import LoopbackServer
from harness.observation import Seen
from harness.rollout import Execution, ServerView, execute
from harness.tab import Tab

START_SECONDS = 5.0
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


def miniwob_tasks(
    names: Sequence[str] = tuple(ORACLES), *, num_seeds: int = 1, first_seed: int = 0
) -> tuple[Task, ...]:
    """Tasks without their instruction, which the page itself says: `MiniWobEnvironment.observe` fills it in."""
    for name in names:
        if name not in ORACLES:
            raise unknown_name("MiniWoB++ task", name, ORACLES)
    seeds = range(first_seed, first_seed + num_seeds)
    return tuple(
        Task(id=f"miniwob/{name}-{seed}", split="test", site=f"{name}?{seed}", instruction="", gold=(REWARD,))
        for name in names
        for seed in seeds
    )


class MiniWobEnvironment:
    """Observe and run MiniWoB++ tasks. All coroutines belong to one event loop."""

    def __init__(self, *, isolation: Isolation = "page", executor: ExecutorName = "fast") -> None:
        if isolation == "arena":
            raise ConfigError("MiniWoB++ pages run in a tab of their own: isolation context, origin or page.")
        self.isolation: Isolation = isolation
        self.executor: ExecutorName = executor
        self.pool = BrowserPool()
        self.server = LoopbackServer(Starlette())
        self.server.app.mount("/", StaticFiles(directory=_html_folder()))
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> MiniWobEnvironment:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()
        await self.server.stop()

    async def observe(self, task: Task) -> tuple[str, Page]:
        """Instruction and controls of an episode, as they stand at its start."""
        async with self.pool.tab(self.isolation) as tab:
            return await self._start(tab, task)

    async def run(self, task: Task, plan: str) -> Outcome:
        """Run a plan once. Its outcome is a success where the page's own reward is 1."""
        page = Page(titles=("",), controls=())

        async def once(attempt: Attempt) -> Outcome:
            nonlocal page
            async with self.pool.tab(self.isolation, is_fresh=attempt.is_fresh) as tab:
                _, page = await self._start(tab, task)
                server = ServerView(is_accepted=lambda: False, rejections=list)
                with attribute("execute"):
                    execution = await execute(tab, EXECUTORS[self.executor], parse_plan(plan), page, server)
                    work = tab.page.evaluate(RESULT)
                    is_done, reward = await tab.within(work, START_SECONDS, is_action=False)
            return _outcome(task, plan, execution, is_done=is_done, reward=reward, num_attempts=attempt.number)

        try:
            return await attempts(self.pool, once)
        except EnvironmentFaultError as fault:
            return outcomes.lost(task, page, str(fault), NUM_ATTEMPTS)

    async def _start(self, tab: Tab, task: Task) -> tuple[str, Page]:
        name, seed = task.site.split("?")
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
        return query, Page(titles=(seen["title"],), controls=tuple(controls))


def oracle_plan(task: Task, query: str, page: Page) -> str:
    """The plan that does what the query asks for."""
    return ORACLES[task.site.split("?")[0]](query, page)


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
