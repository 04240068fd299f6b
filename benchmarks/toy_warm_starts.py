"""How good the toys' warm starts are, and what they cost: success before training, for numbers of warm-start steps.

    python -m benchmarks.toy_warm_starts toy_copy masked 350 700 1000

A toy should begin with 20 to 60 % of sampled answers right: below, groups teach nothing; above, little is left to gain.
The chosen number goes into `WARM_STEPS` of experiments/design/toys.py. Seconds are processor time of one thread.
"""

from __future__ import annotations

import argparse
import time
from statistics import mean
from typing import Any

import torch

from dllm_rl.training.engine import RolloutEngine, evaluate
from experiments.design import toys
from experiments.design.config import build_reward, build_sampler, build_session
from experiments.design.presets import load_preset
from experiments.run import policies


def measure(toy: str, family: str, num_steps: int) -> dict[str, float]:
    """Success and reward on `val`, sampled (4 each) and greedy, of a warm start of so many steps."""
    preset = load_preset(toy)
    toys.WARM_STEPS[toy][family] = num_steps
    policies._warm_started.cache_clear()
    started = time.process_time()
    policy = policies.load_toy(f"{toys.TOY}{toy}", {"family": family})
    seconds = time.process_time() - started
    with build_session(preset.environment) as session:
        engine = RolloutEngine(
            policy=policy,
            sampler=build_sampler(preset.policies[family].sampler, temperature=1.0),
            environment=session,
            reward=build_reward(preset.reward),
        )
        rows = evaluate(engine, session.tasks("val"), num_samples=4, seed=0)

    def share(mode: str, key: str) -> float:
        return mean(float(row[key]) for row in rows if row["mode"] == mode)

    found: dict[str, Any] = {
        f"{mode} {key}": share(mode, key) for mode in ("sampled", "greedy") for key in ("success", "reward")
    }
    return {**found, "seconds": seconds}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("toy", choices=list(toys.CANVAS))
    parser.add_argument("family")
    parser.add_argument("steps", type=int, nargs="+")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for num_steps in chosen.steps:
        result = measure(chosen.toy, chosen.family, num_steps)
        figures = ", ".join(f"{name} {value:.2f}" for name, value in result.items())
        print(f"{chosen.family}, {num_steps} steps: {figures}", flush=True)
