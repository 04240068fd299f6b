"""Time and memory of training a checkpoint of a published shape with random weights, on the device that is given.

    python -m benchmarks.own_checkpoint llada_8b --device cuda --lora 16 --checkpointing
    accelerate launch --multi_gpu --num_processes 8 -m benchmarks.own_checkpoint dream_7b --device cuda --shards 8 \\
        --checkpointing
    python -m benchmarks.own_checkpoint tiny                        # does it run?

Two training steps: rollouts are sampled, rewards are random, and ESPO takes two updates on them. The first step warms
up; the second is told: rollouts and tokens a second, seconds of an update, the peak that the device saw (on a processor
what the process took from before the model was made), and beside it what a dry run would have said
(`experiments.run.footprint`). Nothing is downloaded. Of several processes each tells its own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.memory import forget_peak, resident
from dllm_rl import registry
from dllm_rl.environment import Environment
from dllm_rl.files import read_rows
from dllm_rl.load_options import LoadOptions, LoraOptions
from dllm_rl.policies.adapters import add_lora, checkpoint_activations
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.devices import usable_device
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.reward import FromFunction, Reward
from dllm_rl.session import Session
from dllm_rl.testing.policies import tokenizer
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.engine import RolloutEngine
from dllm_rl.training.ranks import launched_ranks
from dllm_rl.training.trainer import Trainer
from experiments.run.footprint import GIB, Workload, footprint
from samplers.loop.sampling import rows_at_once

PROMPTS = 8
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llada_8b": (
        "llama",
        {"vocab_size": 126_464, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 32}
        | {"num_attention_heads": 32, "num_key_value_heads": 32},
    ),
    "dream_7b": (
        "qwen2",
        {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28}
        | {"num_attention_heads": 28, "num_key_value_heads": 4},
    ),
    "llama_1b": (
        "llama",
        {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True},
    ),
    "tiny": (
        "llama",
        {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_key_value_heads": 4},
    ),
}


# What a prompt repeats, how many tokens that has, and how many the rest of a prompt.
SENTENCE, TOKENS, REST = "Fill in the form, then send it. ", 28, 7


class Chance(Environment):
    """Takes any plan, and pays by chance.

    Args:
        prompt: Tokens that a prompt may have.
    """

    isolations = ("context",)

    def __init__(self, prompt: int) -> None:
        self._words = SENTENCE * max(1, min(10, (prompt - REST) // TOKENS))

    def tasks(self, split: str) -> list[Task]:
        """One task a prompt of a step."""
        numbers = range(PROMPTS)
        return [Task(id=f"{split}/{n}", split=split, site="none", instruction=self._words, gold=()) for n in numbers]

    async def observe(self, task: Task) -> Observation:
        """Return an empty page."""
        return Observation(titles=("Page",), controls=())

    async def run(self, task: Task, plan: str, **settings: Any) -> Outcome:
        """Return an outcome without faults."""
        return Outcome(task_id=task.id)


def by_chance(seed: int) -> Reward:
    """Rewards that say nothing."""
    chance = random.Random(seed)
    return FromFunction(lambda outcome: chance.random())


def random_policy(given: argparse.Namespace, options: LoadOptions) -> BasePolicy:
    """A masked policy of the shape with random weights."""
    architecture, sizes = SHAPES[given.shape]
    config = AutoConfig.for_model(architecture, **sizes)
    config.is_causal = False
    torch.manual_seed(0)
    with usable_device(options):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, given.dtype))
    facts = PolicyFacts(family="masked", max_prompt=given.prompt, canvas_length=given.columns)
    policy = registry.get("policy", "masked")(model.eval(), tokenizer(), facts)
    if options.lora is not None:
        add_lora(policy, options.lora)
    if options.gradient_checkpointing:
        checkpoint_activations(policy)
    return policy


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run two steps; the figures of the second."""
    lora = None if given.lora is None else LoraOptions(rank=given.lora)
    options = LoadOptions(
        device=given.device,
        dtype=given.dtype,
        lora=lora,
        gradient_checkpointing=given.checkpointing,
        shards=given.shards,
        optimiser=given.optimiser,
    )
    ranks = launched_ranks([given.device])
    ranks.refuse_shards(given.shards, "the benchmark")
    ranks.refuse_shared(given.device)
    before = resident("VmRSS")
    policy = random_policy(given, options)
    is_cuda = policy.device.type == "cuda"
    config = TrainConfig(  # type: ignore[call-arg]
        steps=given.training_steps,
        prompts_per_step=min(PROMPTS, given.rows // 2),
        group_size=given.rows // min(PROMPTS, given.rows // 2),
        inner_steps=2,
        micro_batch_rows=given.micro_batch,
        checkpoint_every=100,
        learning_rate=1e-6,
    )
    sampler = registry.build("sampler", "low_confidence", {"num_steps": given.steps}, temperature=1.0)
    with tempfile.TemporaryDirectory() as folder, Session(Chance(given.prompt)) as session:
        trainer = Trainer(
            engine=RolloutEngine(policy=policy, sampler=sampler, environment=session, reward=by_chance(0)),
            objective=registry.build("objective", "espo", {"beta": 0.0, "num_draws": 1}),
            tasks=session.tasks("train"),
            config=config,
            run_dir=Path(ranks.from_first(folder)),
            loading=options,
        )
        if not is_cuda:
            forget_peak()
        trainer.train()
        last = read_rows(trainer.run_dir / "metrics.jsonl")[-1]
        ranks.leave()
    peak = torch.cuda.max_memory_allocated() if is_cuda else resident("VmHWM") - before
    width = given.prompt + given.columns
    at_once = rows_at_once(policy.device, width, given.columns * policy.vocab_size)
    work = Workload(
        rows=given.micro_batch,
        sampled=min(given.rows // ranks.count, at_once),
        width=width,
        columns=given.columns,
        has_reference=False,
    )
    architecture, sizes = SHAPES[given.shape]
    told = footprint(AutoConfig.for_model(architecture, **sizes), options, work)
    return {
        "device": torch.cuda.get_device_name() if is_cuda else "cpu",
        "rollouts a second": given.rows / last["seconds/sampling"],
        "tokens a second": given.rows * given.columns / last["seconds/sampling"],
        "seconds/sampling": last["seconds/sampling"],
        "seconds/update": last["seconds/update"],
        "peak (GiB)": peak / GIB,
        "told by a dry run (GiB)": sum(told.values()) / GIB,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--lora", type=int, help="Rank of an adapter. Default: all weights are trained.")
    parser.add_argument("--shards", type=int, default=1, help="Processes that the weights are sharded over.")
    parser.add_argument("--optimiser", default="adamw", choices=["adamw", "adamw_8bit"])
    parser.add_argument("--checkpointing", action="store_true", help="Compute activations again on the way back.")
    parser.add_argument("--rows", type=int, default=64, help="Rollouts a step.")
    parser.add_argument("--training-steps", type=int, default=2, help="Of which the last is told.")
    parser.add_argument("--prompt", type=int, default=384)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--steps", type=int, default=64, help="Denoising steps.")
    parser.add_argument("--micro-batch", type=int, default=8)
    print(json.dumps(measure(parser.parse_args(words)), indent=1))


if __name__ == "__main__":
    main()
