"""What waiting threads cost on busy cores: python -m benchmarks.busy_cores

Wall seconds of one ESPO update of the built-in masked policy's size, with OpenMP threads that spin while they wait (the
library's default), that soon sleep (what `dllm-rl` sets), that sleep at once (`OMP_WAIT_POLICY=passive`), and with one
thread; each beside none, one and as many busy processes as there are cores. A process a measurement, in turn, round
after round; the figure is the median over rounds of the median update, and its ratio to spinning threads on idle cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from dllm_rl.threads import SPIN_COUNT

CORES = os.cpu_count() or 1
SETTINGS = {
    "spinning threads": {"GOMP_SPINCOUNT": "", "OMP_WAIT_POLICY": "", "OMP_NUM_THREADS": str(CORES)},
    "soon sleeping threads": {"GOMP_SPINCOUNT": SPIN_COUNT, "OMP_WAIT_POLICY": "", "OMP_NUM_THREADS": str(CORES)},
    "sleeping threads": {"GOMP_SPINCOUNT": "", "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(CORES)},
    "one thread": {"GOMP_SPINCOUNT": "", "OMP_WAIT_POLICY": "", "OMP_NUM_THREADS": "1"},
}
UPDATES = 5


def measure() -> None:
    """In a process of its own: print the median seconds of an update, the first left out."""
    from benchmarks.update_cost import PARTS, random_policy, random_rollouts, trainer_of

    part = PARTS["built_in"]
    policy = random_policy(part.sizes, num_letters=part.num_letters, canvas=part.canvas, prompt=part.prompt)
    trainer = trainer_of(policy, "espo", {}, micro_batch_rows=part.rows)
    rollouts = random_rollouts(policy, rows=part.rows, groups=part.groups)
    seconds = []
    for _ in range(UPDATES + 1):
        started = time.perf_counter()
        trainer.updater.update(0, rollouts, rate=trainer.config.learning_rate)
        seconds.append(time.perf_counter() - started)
    print(median(seconds[1:]))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that want a core each, ended afterwards."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(environment: dict[str, str]) -> float:
    """Seconds of an update under these settings; an empty one is unset."""
    whole = {key: value for key, value in {**os.environ, **environment}.items() if value or key not in environment}
    command = [sys.executable, "-m", "benchmarks.busy_cores", "--measure"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, env=whole, cwd=root, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(rounds: int) -> None:
    """Print the table as Markdown."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for others in (0, 1, CORES):
            for name, environment in SETTINGS.items():
                with busy(others):
                    found.setdefault((name, others), []).append(run(environment))
    base = median(found["spinning threads", 0])
    print("| | other busy processes | seconds an update | ratio |\n|---|--:|--:|--:|")
    for (name, others), seconds in sorted(found.items()):
        print(f"| {name} | {others} | {median(seconds):.2f} | {median(seconds) / base:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure()
    else:
        main(chosen.rounds)
