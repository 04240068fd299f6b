"""Time and memory of one update of every objective: writes docs/results/update_cost.md, in as many parts as you like.

    python -m benchmarks.update_cost                        # all that is owed; asks nothing twice
    python -m benchmarks.update_cost --only grpo espo --again
    python -m benchmarks.update_cost --part large

Each figure is measured in a process of its own and kept in --store, from which the page is written after every one, so
a run that ends early loses nothing. Time is processor time of one thread, which other work on the machine disturbs less
than wall time but does disturb: where the process got less than four fifths of a core, the page marks its time.

Memory, two measures. *Held*: the largest total of tensors that autograd holds for the backward pass, by storage; no
machine decides it. *Peak*: by how much the process's resident memory grew at most during the update (VmHWM of
/proc/self/status, reset before it by /proc/self/clear_refs), with AdamW's state and gradients, which the first makes.
Part `built_in`: the built-in masked policy's size with random weights. Part `large`: a random model of about 100 M
parameters, V = 32,000, 256 columns, 8 rows; once with whole logits, and once with the output head read in tiles
(`dllm_rl.policies.tiles`), as large vocabularies are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.memory import forget_peak, held_tensors, resident
from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.records.types import Rollouts
from dllm_rl.session import Session
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.engine import RolloutEngine
from dllm_rl.training.intermediate import with_step_rewards
from dllm_rl.training.trainer import Trainer
from samplers.rules.low_confidence import LowConfidenceSampler
from studies.exact.policy import Letters

STEPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A policy and a batch to measure on.

    Attributes:
        options: Of an objective, where they are not its defaults.
        is_also_in_tiles: Whether each objective is measured with the head in tiles, too.
    """

    sizes: dict[str, int]
    num_letters: int
    prompt: int
    canvas: int
    rows: int
    groups: int
    rounds: int
    options: dict[str, dict[str, Any]]
    is_also_in_tiles: bool = False


PARTS = {
    "built_in": Part(
        sizes={"hidden_size": 128, "intermediate_size": 336, "num_hidden_layers": 4, "num_attention_heads": 4},
        num_letters=2500,
        prompt=200,
        canvas=100,
        rows=16,
        groups=2,
        rounds=3,
        options={},
    ),
    # One view of all rows against one antithetic pair; no reference policy, whose forward would hide the difference.
    "large": Part(
        sizes={"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 11, "num_attention_heads": 12},
        num_letters=32_000 - 3,
        prompt=64,
        canvas=256,
        rows=8,
        groups=2,
        rounds=1,
        options={"grpo": {"beta": 0.0}, "espo": {"beta": 0.0, "num_draws": 1}},
        is_also_in_tiles=True,
    ),
}
STORE = Path("runs/bench/update_cost.json")
PAGE = Path("docs/results/update_cost.md")
IN_TILES = ", head in tiles"
# Below this share of a core the time is marked.
BUSY = 0.8


def random_policy(sizes: dict[str, Any], *, num_letters: int, canvas: int, prompt: int = 200) -> BasePolicy:
    """A masked policy with random weights over letters and three special ids."""
    torch.manual_seed(0)
    letters = Letters(num_letters=num_letters)
    model = TinyForPlans(TinyConfig(vocab_size=num_letters + 3, pad_token_id=letters.pad_token_id, **sizes))
    facts = PolicyFacts(family="masked", max_prompt=prompt, canvas_length=canvas)
    return registry.get("policy", "masked")(model.eval(), letters, facts)


def random_rollouts(policy: BasePolicy, *, rows: int, groups: int) -> Rollouts:
    """Random completions of full length with random rewards; nothing is sampled."""
    generator = torch.Generator().manual_seed(0)
    prompts = policy.prompts(["a" * policy.facts.max_prompt] * rows, list(range(rows)))
    ids = torch.randint(policy.vocab_size - 3, (rows, policy.facts.canvas_length), generator=generator)
    valid, mask = torch.ones(rows, dtype=torch.bool), torch.ones_like(ids, dtype=torch.bool)
    group_ids = torch.arange(groups).repeat_interleave(rows // groups)
    return Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=ids,
        completion_mask=mask,
        rewards=torch.rand(rows, generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=None,
        totals=Rollouts.count_totals(valid, group_ids, mask),
    )


def make_rollouts(policy: BasePolicy, *, rows: int, groups: int, steps: int) -> Rollouts:
    """Sampled completions with their trajectory, random rewards and intermediate answers."""
    generator = torch.Generator().manual_seed(0)
    prompts = policy.prompts(["a" * policy.facts.max_prompt] * rows, list(range(rows)))
    drawn = LowConfidenceSampler(num_steps=steps).generate(policy, prompts, seed=0)
    valid = torch.ones(rows, dtype=torch.bool)
    group_ids = torch.arange(groups).repeat_interleave(rows // groups)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.as_drawn,
        completion_mask=drawn.mask,
        rewards=torch.rand(rows, generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
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
    engine = RolloutEngine(
        policy=policy,
        sampler=LowConfidenceSampler(num_steps=STEPS),
        environment=Session(registry.build("environment", "toy_copy")),
        reward=registry.build("reward", "outcome"),
    )
    return Trainer(
        engine=engine,
        objective=registry.build("objective", name, options),
        tasks=(),
        config=TrainConfig(learning_rate=0.0, micro_batch_rows=micro_batch_rows),  # type: ignore[call-arg]
        run_dir=Path(tempfile.gettempdir()),
    )


def measure(trainer: Trainer, rollouts: Rollouts) -> tuple[float, int]:
    """Processor seconds of one update, and the most bytes that autograd held."""
    started = time.process_time()
    with held_tensors() as held:
        trainer.updater.update(0, rollouts, rate=trainer.config.learning_rate)
    return time.process_time() - started, held.peak


def measure_here(part: Part, name: str) -> dict[str, Any]:
    """All figures of one objective, in this process. Memory is of the first update, time the median of the rest."""
    policy = random_policy(part.sizes, num_letters=part.num_letters, canvas=part.canvas, prompt=part.prompt)
    policy.reads_in_tiles = name.endswith(IN_TILES)
    name = name.removesuffix(IN_TILES)
    trainer = trainer_of(policy, name, part.options.get(name, {}), micro_batch_rows=part.rows)
    if trainer.objective.requires:
        rollouts = make_rollouts(policy, rows=part.rows, groups=part.groups, steps=STEPS)
    else:
        rollouts = random_rollouts(policy, rows=part.rows, groups=part.groups)
    before = resident("VmRSS")
    forget_peak()
    wall, processor = time.perf_counter(), time.process_time()
    seconds, held = measure(trainer, rollouts)
    peak = resident("VmHWM") - before
    times = [measure(trainer, rollouts)[0] for _ in range(part.rounds - 1)] or [seconds]
    return {
        "parameters": sum(parameter.numel() for parameter in policy.model.parameters()),
        "seconds": median(times),
        "core": (time.process_time() - processor) / (time.perf_counter() - wall),
        "held": held,
        "peak": peak,
    }


def measure_apart(part: str, name: str) -> dict[str, Any]:
    """The same in a process of its own, whose peak is its own."""
    command = [sys.executable, "-m", "benchmarks.update_cost", "--part", part, "--measure", name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def page(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """docs/results/update_cost.md from all that was measured so far."""
    lines = [Path(__file__).with_suffix(".md").read_text().rstrip()]
    for part, values in found.items():
        size = f"{next(iter(values.values()))['parameters'] / 1e6:.1f} M parameters"
        lines += ["", f"## {TITLES[part]} ({size})", "", "| " + " | ".join(COLUMNS) + " |"]
        lines.append("|---" + "|--:" * (len(COLUMNS) - 1) + "|")
        lines += [_line(part, name, value, values.get("grpo")) for name, value in values.items()]
    return "\n".join([*lines, ""])


def _line(part: str, name: str, value: dict[str, Any], base: dict[str, Any] | None) -> str:
    mark = "" if value["core"] >= BUSY else " *"
    ratio = {key: f"{value[key] / base[key]:.2f}" if base else "-" for key in ("seconds", "held", "peak")}
    cells = [name, ratio["seconds"] + mark, f"{1000 * value['seconds'] / PARTS[part].rows:.0f}{mark}"]
    cells += [f"{value['held'] / 1e6:.0f}", ratio["held"], f"{value['peak'] / 1e6:.0f}", ratio["peak"]]
    return "| " + " | ".join(cells) + " |"


COLUMNS = ("objective", "time / grpo", "ms a rollout", "held, MB", "held / grpo", "peak, MB", "peak / grpo")
TITLES = {
    "built_in": "The built-in size, 16 rollouts of 200 + 100 tokens: every method of the masked family",
    "large": "V = 32,000, 8 rows of 64 + 256 tokens: one view and one antithetic pair, no reference policy",
}


def names_of(part: str) -> list[str]:
    """The objectives that a part measures, `grpo` first."""
    if part == "large":
        tiled = (f"{name}{IN_TILES}" for name in PARTS[part].options if PARTS[part].is_also_in_tiles)
        return [*PARTS[part].options, *tiled]
    masked = [name for name, cls in registry.items("objective") if "masked" in registry.families_of(cls)]
    return ["grpo", *(name for name in masked if name != "grpo")]


def run(parts: Sequence[str], only: Sequence[str], *, is_again: bool, store: Path, out: Path) -> None:
    """Measure what is owed, and write the store and the page after each figure."""
    found = json.loads(store.read_text()) if store.is_file() else {}
    for part in parts:
        for name in names_of(part):
            is_owed = is_again or name not in found.get(part, {})
            if not is_owed or (only and name not in only):
                continue
            values = {**found.get(part, {}), name: measure_apart(part, name)}
            found[part] = {key: values[key] for key in names_of(part) if key in values}
            store.parent.mkdir(parents=True, exist_ok=True)
            store.write_text(json.dumps(found, indent=1))
            out.write_text(page({key: found[key] for key in PARTS if key in found}))
            print(part, name, {key: round(value, 3) for key, value in found[part][name].items()}, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=list(PARTS), action="append", help="all parts if not given")
    parser.add_argument("--only", nargs="*", default=[], help="objectives; all if not given")
    parser.add_argument("--again", action="store_true", help="measure what the store holds already, too")
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--measure", metavar="NAME", help="one objective of one part in this process; prints JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.measure:
        print(json.dumps(measure_here(PARTS[chosen.part[0]], chosen.measure)))
    else:
        run(chosen.part or list(PARTS), chosen.only, is_again=chosen.again, store=chosen.store, out=chosen.out)
