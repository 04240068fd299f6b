"""MiniWoB++ (Shi et al. 2017; Liu et al. 2018) from the PyPI package `miniwob`: its form-like tasks as tasks of ours.

The package's HTML is served unchanged on loopback, one page an episode. The random numbers are seeded by the page's own
`Math.seedrandom`, the episode is started by the page's own `core`, and its raw reward (no time penalty) is the truth.
Controls without an HTML name get one once the episode has started, and boxes without a label get their id
as label, since refs are resolved by name.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles

from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Control, Fault, FieldResult, GoldField, Observation, Outcome, Passage, Task
from dllm_rl.registry import register
from harness.browser import Attempt, EnvironmentFaultError, Tab, attribute, isolation_named
from harness.environments.base import IN_A_TAB, BrowserEnvironment, BrowserSettings, check_counts
from harness.environments.miniwob_oracles import ORACLES, READ_FROM_TEXT, html_folder
from harness.execute import Execution, ServerView, execute, executor_named
from harness.scout import Seen
from harness.sites.server import LoopbackServer

START_SECONDS = 5.0
DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120}
SEEDS_A_SPLIT = 1_000_000
REWARD = GoldField(name="reward", kind="number", wanted=("1",), label="reward of the task's own core")
# What is known of an episode before it stands: that it is one page.
UNSEEN = Observation(titles=("",), controls=())
# A seed is a number, as in the package's own environment: as a text it would name another episode.
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
# What stands below the query, a line each; the cells of a row are a name and what it is.
TEXT = """() => document.querySelector("#area").innerText.split("\\n").map((line) => line.trim())
  .filter(Boolean).map((line) => line.replace(/\\s*\\t\\s*/g, ": "))"""


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
        if self.names == ():
            raise ConfigError("names is empty; expected names of tasks. Leave it out for all.")
        for name in self.names or ():
            if name not in ORACLES:
                raise unknown_name("MiniWoB++ task", name, ORACLES)
        check_counts(self.counts, DEFAULT_COUNTS)
        if self.isolation == "arena":
            raise ConfigError("isolation is arena; MiniWoB++ pages run in a tab of their own: context, origin or page.")


@register("environment", "miniwob")
class MiniWobEnvironment(BrowserEnvironment[MiniWobSettings]):
    """The form-like tasks of MiniWoB++. The page itself says the instruction: `Observation.instruction`."""

    version: ClassVar[int] = 2
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
            self.server.app.mount("/", StaticFiles(directory=html_folder()))
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

            try:
                self._seen[task.site] = await self.pool.attempts(once)
            except EnvironmentFaultError as fault:
                raise ConfigError(
                    f"{task.id} cannot be looked at: {fault}. Look at its page in a browser of your own, or leave the "
                    "task out (names)."
                ) from fault
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
            await tab.within(tab.page.evaluate(START, int(seed)), START_SECONDS, is_action=False)
            query = await tab.within(tab.page.evaluate(QUERY), START_SECONDS, is_action=False)
        seen = await tab.call("inventory", seconds=2.0)
        controls: list[Control] = [
            Seen.read(record).control(f"p1.e{at}", None) for at, record in enumerate(seen["controls"], start=1)
        ]
        passages: tuple[Passage, ...] = ()
        if name in READ_FROM_TEXT:
            lines = await tab.within(tab.page.evaluate(TEXT), START_SECONDS, is_action=False)
            buttons = {control.name for control in controls if control.kind == "button"}
            passages = tuple(Passage(text=line, before="") for line in lines if line not in buttons)
        return Observation(
            titles=(seen["title"],), controls=tuple(controls), passages=passages, instruction=query
        )  # fmt: skip


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
