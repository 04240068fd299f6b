"""What the record of a trajectory costs: its share of the time that drawing takes, its bytes, and its rebuilding.

`python -m benchmarks.recording [--plans 16] [--arms NAME ...]`. The shipped policies write plans of `val` at
temperature 1. Time is that of the thread alone, so that other work hardly matters; the record's part is what the
recorder's methods take; entropies, which are computed for it alone under these rules, are a column of their own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

import samplers.families.autoregressive
import samplers.families.flow
import samplers.grammar.projection
from benchmarks.plans import Sheet, sheet
from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.loading import load_policy
from dllm_rl.records.types import Completions
from samplers.grammar.projection import Constrained
from samplers.loop.record import Recorder

ARMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "low_confidence, one a step": ("masked", "low_confidence", {"num_steps": 100}),
    "threshold .97": ("masked", "threshold", {"threshold": 0.97}),
    "rcr, 32 steps": ("masked", "rcr", {"num_steps": 32}),
    "low_confidence on the block family": ("block", "low_confidence", {"num_steps": 100}),
    "slots": ("slot", "slots", {}),
    "flow_exact, 16 steps": ("flow", "flow_exact", {"num_steps": 16}),
    "ar": ("autoregressive", "ar", {}),
}
RECORD = ((Recorder, "commit_at"), (Recorder, "jump"), (Recorder, "finish"))
ENTROPY = (
    (samplers.grammar.projection, "entropy"),
    (Constrained, "_tempered_entropy"),
    (samplers.families.flow, "entropy"),
    (samplers.families.autoregressive, "entropy"),
)
REPEATS = 3
COLUMNS = (
    "decoding",
    "batch",
    "ms a plan",
    "record",
    "entropies",
    "bytes a plan",
    "events",
    "as canvases",
)


class Clock:
    """Seconds of this thread inside the wrapped functions, nested ones counted once."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*args: Any, **facts: Any) -> Any:
            self.depth += 1
            started = time.thread_time()
            try:
                return function(*args, **facts)
            finally:
                self.depth -= 1
                if not self.depth:
                    self.seconds += time.thread_time() - started

        return timed


@contextmanager
def timed_parts(parts: Sequence[tuple[Any, str]]) -> Iterator[Clock]:
    """While it lasts, these functions are timed."""
    clock = Clock()
    with ExitStack() as stack:
        for owner, name in parts:
            stack.enter_context(mock.patch.object(owner, name, clock.wrap(getattr(owner, name))))
        yield clock


def draw(policy: BasePolicy, sampler: Any, tasks: Sheet, batch: int) -> tuple[list[Completions], list[float]]:
    """Completions of all tasks; seconds of the fastest repeat, and the shares of record and entropies in it."""
    found: list[list[float]] = []
    outs: list[Completions] = []
    for _ in range(REPEATS):
        with timed_parts(RECORD) as record, timed_parts(ENTROPY) as entropy:
            started = time.thread_time()
            outs = [
                sampler.generate(policy, tasks.part(at, min(at + batch, len(tasks))).prompts(policy), seed=0)
                for at in range(0, len(tasks), batch)
            ]
            seconds = time.thread_time() - started
        found.append([seconds, record.seconds / seconds, entropy.seconds / seconds])
    return outs, min(found)


def line(policy: BasePolicy, arm: str, tasks: Sheet, batch: int) -> str:
    """One row of the table."""
    _, name, options = ARMS[arm]
    outs, (seconds, record_share, entropy_share) = draw(policy, registry.get("sampler", name)(**options), tasks, batch)
    records = [out.trajectory for out in outs]
    count = len(tasks)
    size = sum(record.events.num_bytes for record in records) / count
    events = sum(len(record.events.step) for record in records) / count
    dense = sum(0 if record.canvases is None else record.canvases.nbytes for record in records) / count
    cells = [arm, str(batch), f"{1000 * seconds / count:.1f}", f"{100 * record_share:.2f} %"]
    cells += [f"{100 * entropy_share:.2f} %", f"{size:,.0f}", f"{events:.0f}", f"{dense:,.0f}"]
    return "| " + " | ".join(cells) + " |"


def rebuilding(policy: BasePolicy, tasks: Sheet) -> str:
    """Milliseconds a plan to rebuild all states, and eight a row."""
    record = registry.get("sampler", "low_confidence")(num_steps=100).generate(policy, tasks.prompts(policy), seed=0)
    events, steps = record.trajectory.events, record.trajectory.num_steps
    every = torch.arange(steps + 1)[:, None].expand(-1, len(tasks))
    times = {}
    for name, asked in (("all states", every), ("eight states a row", every[:: max(1, steps // 8)][:8])):
        started = time.thread_time()
        for _ in range(10):
            events.states(asked)
        times[name] = 100 * (time.thread_time() - started) / len(tasks)
    return "; ".join(f"{name} rebuilt in {value:.3f} ms a plan" for name, value in times.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=16)
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    tasks = sheet(given.plans)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for arm in given.arms:
        policy = load_policy(f"builtin:{ARMS[arm][0]}")
        for batch in (1, 16):
            print(line(policy, arm, tasks, batch), flush=True)
    print(rebuilding(load_policy("builtin:masked"), tasks))


if __name__ == "__main__":
    main()
