"""Time and memory of one update of every objective; run on an idle machine: python -m experiments.bench.update_cost

Part 1: the built-in masked policy's size with random weights, 16 rollouts, one inner step. Methods are measured in
turn, round after round, so that a busy moment hits all; the figure is the median ratio to `grpo` of the same round.
Memory is the largest total of tensors that autograd holds for the backward pass, by storage: no machine decides it.
Part 2 (--large): one forward and backward of one view for a random model of about 100 M parameters, V = 32,000,
256 columns, 8 rows, with the process's peak resident memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch

from dllm_rl import registry
from dllm_rl.answers import with_step_rewards
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.trainer import TrainConfig, Trainer
from dllm_rl.types import Rollouts
from experiments.exact.policy import Letters
from objectives import build_objective
from samplers.low_confidence import LowConfidenceSampler

ROWS, GROUPS, PROMPT, CANVAS, STEPS = 16, 2, 200, 100, 16
BUILT_IN = {"hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 4, "num_attention_heads": 4}
LARGE = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 11, "num_attention_heads": 12}


class Box:
    """Holds a tensor that autograd saved, and can be watched for its end."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Held:
    """Bytes that autograd holds for backward now, and the most it held; see `held_tensors`."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self._count: dict[int, int] = {}

    def add(self, tensor: torch.Tensor) -> Any:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if self._count.get(key, 0) == 0:
            self.now += size
            self.peak = max(self.peak, self.now)
        self._count[key] = self._count.get(key, 0) + 1
        box = Box(tensor)
        weakref.finalize(box, self._drop, key, size)
        return box

    def _drop(self, key: int, size: int) -> None:
        self._count[key] -= 1
        if self._count[key] == 0:
            self.now -= size


@contextmanager
def held_tensors() -> Iterator[Held]:
    """Count what autograd saves inside the block, parameters included once."""
    held = Held()
    with torch.autograd.graph.saved_tensors_hooks(held.add, lambda box: box.tensor):
        yield held


def random_policy(sizes: dict[str, Any], *, num_letters: int, canvas: int) -> BasePolicy:
    """A masked policy with random weights over letters and three special ids."""
    torch.manual_seed(0)
    letters = Letters(num_letters=num_letters)
    model = TinyForPlans(TinyConfig(vocab_size=num_letters + 3, pad_token_id=letters.pad_token_id, **sizes))
    facts = PolicyFacts(family="masked", max_prompt=PROMPT, canvas_length=canvas)
    return registry.get("policy", "masked")(model.eval(), letters, facts)


def make_rollouts(policy: BasePolicy, *, rows: int, groups: int, steps: int) -> Rollouts:
    """Sampled completions with random rewards and intermediate answers."""
    generator = torch.Generator().manual_seed(0)
    prompts = policy.prompts(["a" * PROMPT] * rows, list(range(rows)))
    drawn = LowConfidenceSampler(num_steps=steps).generate(policy, prompts, seed=0)
    valid = torch.ones(rows, dtype=torch.bool)
    group_ids = torch.arange(groups).repeat_interleave(rows // groups)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.ids,
        completion_mask=drawn.mask,
        rewards=torch.rand(rows, generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        behaviour_log_probs=drawn.trajectory.log_probs,
        totals=Rollouts.count_totals(valid, group_ids, drawn.mask),
    )
    tasks: Any = [SimpleNamespace(id=str(row)) for row in range(rows)]
    policy.canvas.decode = lambda ids: str(ids.tolist())  # type: ignore[method-assign]
    scored = with_step_rewards(
        policy, rollouts, tasks, lambda pairs: [len(text) % 7 / 7 for _, text in pairs], generator
    )
    return scored.rollouts


def trainer_of(policy: BasePolicy, name: str, options: dict[str, Any], *, micro_batch_rows: int = 16) -> Trainer:
    """A trainer whose update is measured; it never collects."""
    unused: Any = None
    return Trainer(
        policy=policy,
        sampler=LowConfidenceSampler(num_steps=STEPS),
        objective=build_objective(name, options),
        environment=unused,
        reward=unused,
        tasks=(),
        config=TrainConfig(learning_rate=0.0, micro_batch_rows=micro_batch_rows),  # type: ignore[call-arg]
        run_dir=Path(tempfile.gettempdir()),
    )


def measure(trainer: Trainer, rollouts: Rollouts) -> tuple[float, int]:
    """Processor seconds of one update, and the most bytes that autograd held."""
    started = time.process_time()
    with held_tensors() as held:
        trainer._update(0, rollouts)
    return time.process_time() - started, held.peak


def compare_methods(names: Sequence[str], rounds: int) -> None:
    """Print part 1 as Markdown."""
    policy = random_policy(BUILT_IN, num_letters=2500, canvas=CANVAS)
    rollouts = make_rollouts(policy, rows=ROWS, groups=GROUPS, steps=STEPS)
    trainers = {name: trainer_of(policy, name, {}) for name in names}
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, trainer in trainers.items():
            found[name].append(measure(trainer, rollouts))
    print("| objective | time / grpo | ms a rollout | held for backward, MB | memory / grpo |\n|---|--:|--:|--:|--:|")
    base = found["grpo"]
    for name, values in found.items():
        ratio = median(value[0] / other[0] for value, other in zip(values, base, strict=True))
        seconds, held = median(value[0] for value in values), values[0][1]
        cells = f"{ratio:.2f} | {1000 * seconds / ROWS:.0f} | {held / 1e6:.0f} | {held / base[0][1]:.2f}"
        print(f"| {name} | {cells} |", flush=True)


def large_pass() -> None:
    """Print part 2."""
    policy = random_policy(LARGE, num_letters=32_000 - 3, canvas=256)
    num = sum(parameter.numel() for parameter in policy.model.parameters())
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(32_000 - 3, (8, 256), generator=generator)
    prompts = policy.prompts(["a" * 64] * 8, list(range(8)))
    started = time.perf_counter()
    with held_tensors() as held:
        canvas = torch.full_like(ids, policy.mask_id or 0)
        log_p = policy.score(prompts.ids, prompts.mask, canvas).log_softmax(-1)
        log_p.gather(-1, ids[..., None]).mean().neg().backward()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{num / 1e6:.0f} M parameters, 8 x 256 columns, V = 32000: {seconds:.1f} s, {held.peak / 1e9:.2f} GB held for"
    )
    print(f"backward, {peak:.2f} GB peak resident memory of the process")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.large:
        large_pass()
    else:
        masked = [name for name, cls in registry.items("objective") if "masked" in cls.families]
        compare_methods(["grpo", *(name for name in masked if name != "grpo")], chosen.rounds)
