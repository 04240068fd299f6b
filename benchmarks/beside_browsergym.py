"""Seconds an episode beside BrowserGym, on the same MiniWoB++ episodes with scripted solutions, in alternating rounds.

BrowserGym asks for a Playwright of its own, so an interpreter that has it runs `browsergym_worker.py`:

    python -m venv bgvenv && bgvenv/bin/pip install browsergym-core browsergym-miniwob
    python -m benchmarks.beside_browsergym --python bgvenv/bin/python

One episode at a time and one warm worker each. Ours loads every page twice, to observe and to run a plan; BrowserGym
takes a whole observation after each action. Report medians from an idle machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError
from harness.browser import Isolation
from harness.browser.chromium import system_chromium
from harness.environments import MiniWobEnvironment, MiniWobSettings
from harness.execute import ExecutorName
from harness.rewards import Success

TASKS = ("click-test", "enter-text", "login-user")
WORKER = Path(__file__).with_name("browsergym_worker.py")
# By name: isolation and executor of ours.
OURS: dict[str, tuple[Isolation, ExecutorName]] = {
    "ours, context, trusted": ("context", "trusted"),
    "ours, context, fast": ("context", "fast"),
    "ours, page, fast": ("page", "fast"),
}
# By name: whether BrowserGym keeps its default delays.
THEIRS = {"BrowserGym without delays": False, "BrowserGym": True}
Seconds = dict[str, list[float]]


class Worker:
    """BrowserGym in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def ask(self, **episode: Any) -> dict[str, Any]:
        """What came of an episode."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{json.dumps(episode)}\n".encode())
        await self.process.stdin.drain()
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The next line. Raises ConfigError where the process has ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise ConfigError("BrowserGym's process has ended; what it said stands above.")
        return json.loads(line)


@asynccontextmanager
async def browsergym(python: str, pages: str):
    """A worker, and its end."""
    chromium = system_chromium()
    if shutil.which(python) is None or chromium is None:
        raise ConfigError(f"'{python}' is not a program, or no Chromium was found. `dllm-rl doctor` names the latter.")
    with tempfile.TemporaryDirectory() as browsers:
        process = await asyncio.create_subprocess_exec(
            python, str(WORKER), str(chromium), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "MINIWOB_URL": pages, "PLAYWRIGHT_BROWSERS_PATH": browsers, "PYTHONPATH": ""},
        )  # fmt: skip
        worker = Worker(process)
        try:
            await worker.answer()
            yield worker
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


async def ours(environment: MiniWobEnvironment, number: int) -> float:
    """Seconds of one episode of ours, which must succeed."""
    task = environment.tasks("train")[number]
    started = time.perf_counter()
    page = await environment.observe(task)
    outcome = await environment.run(task, environment.gold_plan(task, page))
    seconds = time.perf_counter() - started
    assert Success()(outcome) == 1.0, outcome
    return seconds


async def theirs(worker: Worker, number: int, *, delays: bool) -> float:
    """Seconds of the same episode of BrowserGym's, which must succeed too."""
    told = await worker.ask(task=TASKS[number % len(TASKS)], seed=number // len(TASKS), delays=delays)
    assert told["reward"] > 0, told
    return told["seconds"]


async def measure(python: str, num_seeds: int, num_rounds: int) -> list[dict[str, Seconds]]:
    """By round and variant, the seconds of each task's episodes; every round has seeds of its own."""
    size = len(TASKS) * num_seeds
    found: list[dict[str, Seconds]] = []
    async with AsyncExitStack() as stack:
        environments = {}
        for name, (isolation, executor) in OURS.items():
            counts = {"train": len(TASKS) + size * num_rounds}
            settings = MiniWobSettings(names=TASKS, counts=counts, isolation=isolation, executor=executor)
            environments[name] = await stack.enter_async_context(MiniWobEnvironment(settings))
        pages = f"{environments['ours, page, fast'].server.base_url}/miniwob/"
        worker = await stack.enter_async_context(browsergym(python, pages))

        async def one(name: str, number: int) -> float:
            if name in THEIRS:
                return await theirs(worker, number, delays=THEIRS[name])
            return await ours(environments[name], number)

        names = (*THEIRS, *OURS)
        # Not counted: what starts browsers.
        for name in names:
            for number in range(len(TASKS)):
                await one(name, number)
        for at in range(num_rounds):
            measured: dict[str, Seconds] = {name: {task: [] for task in TASKS} for name in names}
            for name in names[:: 1 if at % 2 == 0 else -1]:
                for number in range(len(TASKS) + at * size, len(TASKS) + (at + 1) * size):
                    measured[name][TASKS[number % len(TASKS)]].append(await one(name, number))
            found.append(measured)
    return found


def table(rounds: Sequence[dict[str, Seconds]]) -> dict[str, dict[str, Any]]:
    """By variant: seconds an episode, and how many times as fast as BrowserGym without delays, medians over rounds."""
    base = next(iter(THEIRS))
    rows: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        ratios = [_mean(item[base]) / _mean(item[name]) for item in rounds]
        rows[name] = {
            "seconds": round(statistics.median(_mean(item[name]) for item in rounds), 3),
            "times": round(statistics.median(ratios), 2),
            "rounds": [round(ratio, 2) for ratio in ratios],
            "tasks": {
                task: round(statistics.median(sum(item[base][task]) / sum(item[name][task]) for item in rounds), 2)
                for task in rounds[0][name]
            },
        }
    return rows


def _mean(seconds: Seconds) -> float:
    return statistics.mean(value for values in seconds.values() for value in values)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="the interpreter that has BrowserGym")
    parser.add_argument("--seeds", type=int, default=4, help="of each task and round")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rounds = asyncio.run(measure(given.python, given.seeds, given.rounds))
    print(json.dumps({"load": os.getloadavg()[0], "variants": table(rounds)}, indent=2))
