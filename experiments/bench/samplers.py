"""Samplers against two plainly written baselines: `python -m experiments.bench.samplers [--tasks N] [--repeats N] ...`.

Baselines: the textbook loop (every position of the full canvas, float64 softmax, a fixed number of steps, no early end)
and the autoregressive policy with its key-value cache. Arms take turns in one process on one thread, in processor time;
medians over the repeats. `right` is the share of plans that score 1 without a browser (`Environment.score`), `grounds`
the share that parse and act on the page. `random` rows are models of about 20 million parameters with random weights:
their text means nothing, their times do. Figures for a report need an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dllm_rl import registry
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.loading import load_policy
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.rollout import prompts_for
from dllm_rl.tasks import Page
from dllm_rl.testing.sampler import is_grounded
from dllm_rl.types import Prompts
from experiments.components import build_session
from experiments.config import load_preset

RULES: dict[str, dict[str, Any]] = {
    "low_confidence": {},
    "low_confidence, 32 steps": {"num_steps": 32},
    "threshold": {},
    "factor": {},
    "entropy_bound": {},
    "klass": {},
}


@dataclass(slots=True, kw_only=True)
class Arm:
    """One way to write plans, and what was seen of it."""

    name: str
    policy: BasePolicy
    write: Callable[[Prompts, int], tuple[Tensor, int, int]]
    seconds: list[float] = field(default_factory=list)
    nfe: int = 0
    token_forwards: int = 0
    ids: Tensor | None = None


@torch.no_grad()
def textbook(policy: BasePolicy, prompts: Prompts, num_steps: int) -> tuple[Tensor, int, int]:
    """Greedy low-confidence decoding as papers print it: no slicing, no early end, float64 over the vocabulary."""
    canvas = policy.empty_canvas(len(prompts.ids))
    length = canvas.shape[1]
    for step in range(num_steps):
        quota = length // num_steps + (step < length % num_steps)
        probability, token = policy.logits(prompts, canvas).double().softmax(dim=-1).max(dim=-1)
        confidence = probability.masked_fill(canvas != policy.mask_id, -1.0)
        chosen = confidence.topk(quota, dim=1).indices
        canvas.scatter_(1, chosen, token.gather(1, chosen))
    return policy.canvas.close(canvas), num_steps, num_steps * prompts.ids.numel() + num_steps * canvas.numel()


def sampler_arm(name: str, sampler: str, policy: BasePolicy, **options: Any) -> Arm:
    """An arm of a registered sampler, greedy."""
    instance = registry.get("sampler", sampler)(temperature=0.0, **options)

    def write(prompts: Prompts, seed: int) -> tuple[Tensor, int, int]:
        out = instance.generate(policy, prompts, seed=seed)
        return out.ids, out.nfe, out.token_forwards

    return Arm(name=name, policy=policy, write=write)


def random_model(vocabulary: int, tokenizer: Any, facts: PolicyFacts, family: str) -> BasePolicy:
    """About 20 million parameters in the blocks, whatever the vocabulary."""
    torch.manual_seed(0)
    config = TinyConfig(
        vocab_size=max(vocabulary, len(tokenizer)),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=11,
        num_attention_heads=6,
        num_columns=facts.canvas_length,
    )
    model = TinyForPlans(config).eval()
    return registry.get("policy", family)(model, tokenizer, replace(facts, family=family))  # type: ignore[arg-type]


def arms_of(masked: BasePolicy, autoregressive: BasePolicy, *, has_grammar: bool) -> list[Arm]:
    """Both baselines and all rules, each rule also under the grammar."""
    length = masked.facts.canvas_length
    arms = [
        Arm(name="textbook loop", policy=masked, write=lambda prompts, _: textbook(masked, prompts, length)),
        sampler_arm("ar with cache", "ar", autoregressive),
    ]
    for name, options in RULES.items():
        settings = {"num_steps": length, **options}
        rule = name.split(",")[0]
        arms.append(sampler_arm(name, rule, masked, **settings))
        if has_grammar:
            arms.append(sampler_arm(f"{name} + grammar", rule, masked, grammar=True, **settings))
    return arms


def block_arms(block: BasePolicy) -> list[Arm]:
    """Exact keys and values: two steps a block (9 forwards for 64 tokens at 16 columns), and by threshold."""
    steps = 2 * -(-block.facts.canvas_length // block.facts.block_size)
    return [
        sampler_arm(f"block of {block.facts.block_size}, 2 steps each", "low_confidence", block, num_steps=steps),
        sampler_arm("block, threshold", "threshold", block),
    ]


def measure(arms: list[Arm], prompts: Callable[[BasePolicy], Prompts], repeats: int) -> None:
    """Arms take turns; the first round warms up and is not counted."""
    for turn in range(repeats + 1):
        for arm in arms:
            inputs = prompts(arm.policy)
            started = time.process_time()
            arm.ids, arm.nfe, arm.token_forwards = arm.write(inputs, 0)
            if turn:
                arm.seconds.append(time.process_time() - started)


def rows_of(
    arms: list[Arm], label: str, batch: int, pages: list[Page], right: Callable[[list[str]], float]
) -> list[Any]:
    """One record an arm; the ratio is to the textbook loop."""
    base = statistics.median(arms[0].seconds)
    rows = []
    for arm in arms:
        assert arm.ids is not None
        plans = [arm.policy.canvas.decode(ids) for ids in arm.ids]
        tokens = int(arm.policy.canvas.scored(arm.ids).sum())
        seconds = statistics.median(arm.seconds)
        rows.append(
            {
                "model": label,
                "batch": batch,
                "arm": arm.name,
                "nfe": arm.nfe,
                "token_forwards": arm.token_forwards,
                "ms_a_plan": round(1000 * seconds / batch, 1),
                "tokens_a_second": round(tokens / seconds, 1),
                "times_textbook": round(base / seconds, 2),
                "grounds": sum(map(is_grounded, pages, plans)) / batch,
                "right": right(plans),
            }
        )
        print("  ".join(f"{value}" for value in rows[-1].values()), flush=True)
    same = torch.equal(arms[0].ids, arms[2].ids) if arms[0].ids is not None and arms[2].ids is not None else False
    print(f"{label}, batch {batch}: low_confidence writes the textbook loop's tokens: {same}")
    return rows


def plot(rows: list[Any], path: Path) -> None:
    """Share of right plans against time a plan, for the trained policies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for row in rows:
        if row["model"] == "builtin":
            axis.plot(row["ms_a_plan"], 100 * row["right"], "o" if row["batch"] == 1 else "s", color="#3b6ea5")
            axis.annotate(f"{row['arm']} ({row['batch']})", (row["ms_a_plan"], 100 * row["right"]), fontsize=7)
    axis.set(xlabel="processor time a plan (ms, one thread)", ylabel="plans that score 1 (%)", xscale="log")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vocabularies", type=int, nargs="*", default=[512, 8192, 32768])
    parser.add_argument("--out", type=Path, default=Path("runs/bench_samplers"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[Any] = []
    with build_session(load_preset("grid16").environment) as session:
        for batch in given.batches:
            tasks = list(session.tasks("val"))[:batch]
            pages = list(session.observe_many(tasks))

            def prompts(policy: BasePolicy, tasks: list[Any] = tasks) -> Prompts:
                return prompts_for(policy, session, tasks, range(len(tasks)))

            def right(plans: list[str], tasks: list[Any] = tasks) -> float:
                return sum(score == 1.0 for score in session.score_many(list(zip(tasks, plans, strict=True)))) / len(
                    plans
                )

            masked, autoregressive = load_policy("builtin:masked"), load_policy("builtin:autoregressive")
            models = [("builtin", masked, autoregressive, load_policy("builtin:block"))]
            for size in given.vocabularies:
                facts = replace(masked.facts, block_size=16)
                three = [
                    random_model(size, masked.tokenizer, facts, name) for name in ("masked", "autoregressive", "block")
                ]
                models.append((f"random V={three[0].vocab_size}", *three))
            for label, diffusion, twin, block in models:
                arms = arms_of(diffusion, twin, has_grammar=True) + block_arms(block)
                measure(arms, prompts, given.repeats)
                rows += rows_of(arms, label, batch, pages, right)
    (given.out / "samplers.json").write_text(json.dumps(rows, indent=1))
    plot(rows, given.out / "samplers.png")
    print(f"wrote {given.out}/samplers.json and samplers.png")


if __name__ == "__main__":
    main()
