"""Ways to write plans that take turns on one thread, and the two baselines written plainly.

Baselines: the textbook loop (every position of the full canvas, float64 softmax, a fixed number of steps, no early end)
and the autoregressive policy with its key-value cache (the sampler `ar`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.records.types import Prompts

NUM_PARAMETERS = 20e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one run of an arm gave."""

    ids: Tensor
    nfe: int
    token_forwards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to write a batch of plans."""

    name: str
    policy: BasePolicy
    prompts: Prompts
    write: Callable[[BasePolicy, Prompts], Written]

    def run(self) -> tuple[Written, float]:
        """Write once; processor seconds of this process."""
        started = time.process_time()
        out = self.write(self.policy, self.prompts)
        return out, time.process_time() - started


@torch.no_grad()
def textbook(policy: BasePolicy, prompts: Prompts, num_steps: int) -> Written:
    """Greedy low-confidence decoding as papers print it: every position's logits, those of the prompt too, float64
    over the vocabulary, no early end.
    """
    canvas = policy.empty_canvas(len(prompts.ids))
    length = canvas.shape[1]
    # Columns count from the canvas's first; those of the prompt are below zero.
    everything = torch.arange(-prompts.ids.shape[1], length)
    for step in range(num_steps):
        quota = length // num_steps + (step < length % num_steps)
        laws = policy.logits(prompts, canvas, columns=everything).double().softmax(dim=-1)
        probability, token = (found[:, -length:] for found in laws.max(dim=-1))
        confidence = probability.masked_fill(canvas != policy.mask_id, -1.0)
        chosen = confidence.topk(quota, dim=1).indices
        canvas.scatter_(1, chosen, token.gather(1, chosen))
    fed = num_steps * (prompts.ids.numel() + canvas.numel())
    return Written(ids=policy.canvas.close(canvas), nfe=num_steps, token_forwards=fed)


def textbook_arm(policy: BasePolicy, prompts: Prompts) -> Arm:
    """The plain loop, one token a step."""
    length = policy.facts.canvas_length
    return Arm(
        name="textbook loop",
        policy=policy,
        prompts=prompts,
        write=lambda policy, prompts: textbook(policy, prompts, length),
    )


def sampler_arm(name: str, policy: BasePolicy, prompts: Prompts, sampler: str, **options: Any) -> Arm:
    """A registered sampler, greedy unless a temperature is given."""
    drawer = registry.get("sampler", sampler)(**{"temperature": 0.0, **options})

    def write(policy: BasePolicy, prompts: Prompts) -> Written:
        out = drawer.generate(policy, prompts, seed=0)
        return Written(ids=out.ids, nfe=out.nfe, token_forwards=out.token_forwards)

    return Arm(name=name, policy=policy, prompts=prompts, write=write)


def random_policy(family: str, tokenizer: Any, facts: PolicyFacts, vocabulary: int, *, has_end: bool) -> BasePolicy:
    """About 20 million random parameters, those of the vocabulary (which is embedding and head at once) included.

    has_end False: EOS is never written, so that all arms write the same number of tokens. The columns' embeddings are
    scaled up, since otherwise one token fills every canvas, whatever an arm does.
    """
    torch.manual_seed(0)
    hidden, inner = 384, 1024
    of_block = 4 * hidden**2 + 3 * hidden * inner
    config = TinyConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=round((NUM_PARAMETERS - vocabulary * hidden) / of_block),
        num_attention_heads=6,
        num_columns=facts.canvas_length,
    )
    model = TinyForPlans(config).eval()
    assert model.columns is not None
    with torch.no_grad():
        model.columns.weight.mul_(10.0)
    policy = registry.get("policy", family)(model, tokenizer, replace(facts, family=family))  # type: ignore[arg-type]
    if not has_end:
        policy._banned[policy.canvas.eos_id] = True
    return policy


@dataclass(slots=True)
class Ledger:
    """Seconds of every arm, on disk after each run, so that a bench is done in parts and goes on where it stopped."""

    path: Path

    def load(self) -> dict[str, dict[str, Any]]:
        """What was measured: by key, whatever `note` said and the list of seconds."""
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def add(self, key: str, seconds: float, note: dict[str, Any]) -> None:
        """One more measurement of an arm."""
        known = self.load()
        before = known.get(key, {}).get("seconds", [])
        known[key] = {**note, "seconds": [*before, round(seconds, 5)]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1))
        part.replace(self.path)


def take_turns(
    arms: Sequence[Arm], ledger: Ledger, prefix: str, repeats: int, note: Callable[[Arm, Written], dict[str, Any]]
) -> None:
    """Run the arm with the fewest measurements until all have `repeats`; the first run of a process is not counted."""
    warm: set[str] = set()
    while True:
        known = ledger.load()
        counts = {arm.name: len(known.get(f"{prefix} | {arm.name}", {}).get("seconds", ())) for arm in arms}
        arm = min(arms, key=lambda item: counts[item.name])
        if counts[arm.name] >= repeats:
            return
        if arm.name not in warm:
            warm.add(arm.name)
            _warm_up(arm)
        out, seconds = arm.run()
        ledger.add(f"{prefix} | {arm.name}", seconds, note(arm, out))
        print(f"{prefix} | {arm.name}: {counts[arm.name] + 1}/{repeats}, {seconds:.2f} s", flush=True)


def _warm_up(arm: Arm) -> None:
    """A few forwards of the arm's own shapes."""
    canvas = arm.policy.empty_canvas(len(arm.prompts.ids))
    with torch.no_grad():
        for _ in range(2):
            arm.policy.logits(arm.prompts, canvas, columns=torch.tensor([0]))


def median_of(entry: dict[str, Any]) -> float:
    """Median seconds of a ledger's entry."""
    return median(entry["seconds"])
