"""Rollouts a second by isolation mode and executor, interleaved with the plain baseline.

The baseline is what one would write first: for every rollout a new context, `goto`, one locator a line, one at a time.
Rounds alternate over all variants, so that a machine whose speed drifts wrongs none of them; CPU time is that of our
own processes, and on a busy machine the only figure to trust. Report medians from an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from playwright.async_api import Browser
from playwright.async_api import Page as BrowserPage

from dllm_rl.records.plan import Action, parse_plan
from dllm_rl.records.tasks import Control, Task
from harness.browser import BrowserPool, Isolation
from harness.environments import FormEnvironment, FormSettings
from harness.execute import ExecutorName
from harness.rewards import Success
from harness.sites import gold_plan

TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
Pairs = Sequence[tuple[Task, str]]
Work = Callable[[FormEnvironment, Pairs], Awaitable[list[float]]]


@dataclass(slots=True)
class Measured:
    seconds: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def row(self, num_rollouts: int) -> dict[str, float]:
        cuts = statistics.quantiles(self.latencies, n=10)
        return {
            "rollouts_per_second": round(num_rollouts / statistics.median(self.seconds), 2),
            "cpu_ms": round(statistics.median(self.cpu_ms) / num_rollouts, 1),
            "p50_ms": round(1000 * cuts[4]),
            "p90_ms": round(1000 * cuts[8]),
        }


def own_processes() -> dict[int, list[str]]:
    """Fields of /proc/<pid>/stat of this process and all below it."""
    stats = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stats[int(folder.name)] = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
    own = {os.getpid()}
    while more := {pid for pid, stat in stats.items() if int(stat[1]) in own} - own:
        own |= more
    return {pid: stats[pid] for pid in own}


def cpu_ms() -> float:
    """CPU time of our processes, those that ended and were waited for included."""
    return sum(TICK_MS * sum(map(int, stat[11:15])) for stat in own_processes().values())


def memory_mb() -> float:
    """Proportional memory of our browsers and driver, this process left out."""
    total = 0
    for pid in set(own_processes()) - {os.getpid()}:
        try:
            text = (Path("/proc") / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        total += int(next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:")))
    return total / 1024


async def plain(environment: FormEnvironment, pairs: Pairs) -> list[float]:
    """The baseline. It is judged by the server too, and must succeed."""
    async with environment.pool.tab("page") as tab:
        assert tab.context.browser is not None
        return [await _plain(environment, tab.context.browser, task, plan) for task, plan in pairs]


async def _plain(environment: FormEnvironment, browser: Browser, task: Task, plan: str) -> float:
    controls = {control.ref: control for control in (await environment.observe(task)).controls}
    rollout_id = f"plain{time.monotonic_ns()}"
    started = time.perf_counter()
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(environment.server.start_url(task.site, rollout_id))
    for action in parse_plan(plan).actions:
        await _act(page, action, controls[action.ref])
    await context.close()
    assert environment.server.submissions(rollout_id)[-1].accepted, task.id
    environment.server.forget(rollout_id)
    return time.perf_counter() - started


async def _act(page: BrowserPage, action: Action, control: Control) -> None:
    by_name = page.locator(f'[name="{control.field}"]')
    if action.verb == "fill":
        await by_name.fill(action.value or "")
    elif action.verb == "select":
        await by_name.select_option(label=action.value)
    elif control.kind in ("radio", "checkbox"):
        await page.get_by_label(control.name, exact=True).set_checked(action.verb != "uncheck")
    else:
        await page.get_by_role("button", name=control.name, exact=True).click()


def ours(isolation: Isolation, executor: ExecutorName) -> Work:
    async def work(environment: FormEnvironment, pairs: Pairs) -> list[float]:
        outcomes = await environment.run_many(pairs, isolation=isolation, executor=executor)
        assert all(Success()(outcome) == 1.0 for outcome in outcomes)
        return [sum(outcome.seconds.values()) for outcome in outcomes]

    return work


async def recovery_ms(environment: FormEnvironment, pair: tuple[Task, str]) -> float:
    """From the death of the browser to a tab of its successor."""
    await environment.run(*pair)
    for pid in environment.pool.pids:
        os.kill(pid, signal.SIGKILL)
    started = time.perf_counter()
    while True:
        try:
            async with environment.pool.tab("page") as tab:
                await tab.page.evaluate("1")
                return 1000 * (time.perf_counter() - started)
        except Exception:
            continue


def make_variants(names: Sequence[str], at_a_time: Sequence[int | None]) -> dict[str, tuple[int | None, Work]]:
    """By name: rollouts at a time, None for the mode's own number, and what is done with the pairs."""
    variants: dict[str, tuple[int | None, Work]] = {"plain": (None, plain)}
    for executor in get_args(ExecutorName):
        for mode in get_args(Isolation):
            for number in at_a_time:
                name = f"{mode} {executor}" + (f" @{number}" if number else "")
                variants[name] = (number, ours(mode, executor))
    return {name: item for name, item in variants.items() if not names or name.split(" @")[0] in names}


async def main(num_tasks: int, num_rounds: int, at_a_time: list[int | None], names: list[str]) -> None:
    variants = make_variants(names, at_a_time)
    measured = {name: Measured() for name in variants}
    async with AsyncExitStack() as stack:
        environments = {
            number: await stack.enter_async_context(FormEnvironment(form_settings(num_tasks, number)))
            for number in dict.fromkeys(number for number, _ in variants.values())
        }
        environment = next(iter(environments.values()))
        tasks = environment.tasks("test")
        pages = await environment.observe_many(tasks)
        pairs = [(task, gold_plan(task, page)) for task, page in zip(tasks, pages, strict=True)]
        for _ in range(num_rounds):
            for name, (number, work) in variants.items():
                cpu, started = cpu_ms(), time.perf_counter()
                latencies = await work(environments[number], pairs)
                measured[name].seconds.append(time.perf_counter() - started)
                measured[name].cpu_ms.append(cpu_ms() - cpu)
                measured[name].latencies += latencies
        recovered = [await recovery_ms(environment, pairs[0]) for _ in range(5)]
        memory = await slots_memory(8)
    rows = {name: item.row(len(pairs)) for name, item in measured.items()}
    fields = statistics.mean(len(task.gold) for task in tasks)
    report = {
        "rollouts": len(pairs), "rounds": num_rounds, "gold_fields": round(fields, 1), "load": os.getloadavg()[0],
        "recovery_ms": round(statistics.median(recovered)), "memory_of_8_slots_mb": round(memory), "variants": rows,
    }  # fmt: skip
    print(json.dumps(report, indent=2))


def form_settings(num_tasks: int, concurrency: int | None) -> FormSettings:
    """Full forms of five kinds, every plan run."""
    kinds = ("contact", "newsletter", "event", "support", "course")
    return FormSettings(
        counts={"test": num_tasks}, kinds=kinds, size="full", concurrency=concurrency, shares_identical=False
    )


async def slots_memory(num_slots: int) -> float:
    """Of one browser with as many tabs in contexts of their own, beyond what was there before."""
    before, pool = memory_mb(), BrowserPool()
    async with asyncio.TaskGroup() as group:
        is_full = asyncio.Barrier(num_slots)
        memory: list[float] = []

        async def hold() -> None:
            async with pool.tab("context") as tab:
                await tab.page.goto("about:blank")
                await is_full.wait()
                if not memory:
                    memory.append(memory_mb() - before)
                await is_full.wait()

        for _ in range(num_slots):
            group.create_task(hold())
    await pool.close()
    return memory[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[None], help="rollouts at a time; default each mode's own"
    )
    parser.add_argument("variants", nargs="*", help="such as 'arena fast' plain; default all")
    given = parser.parse_args()
    asyncio.run(main(given.tasks, given.rounds, given.concurrency, given.variants))
