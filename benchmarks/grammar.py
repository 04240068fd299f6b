"""What the grammar costs and what it changes: `python -m benchmarks.grammar [--section NAME]`.

overhead: greedy, `low_confidence` (32 steps) with and without the grammar, in turns on one thread: processor time a
forward and a plan, for the shipped masked policy and for 20 million random parameters at several vocabularies. With the
grammar forced tokens need no forward, so that a plan may cost less although a forward costs more.
success: the shipped policies' plans on tasks of `val` with and without the grammar, at T = 0 and T = 1: equal to gold,
parsing, acting on the page, forwards. Kept task by task: a run that was cut off goes on.
forwards: the shipped slot and autoregressive policies, one plan at a time with and without the grammar: forwards and
tokens fed a plan, the share of its tokens that were forced, processor time.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.arms import Arm, Ledger, Written, median_of, random_policy, sampler_arm, take_turns
from benchmarks.plans import decode, sheet
from dllm_rl import registry
from dllm_rl.policies.checkpoints import CHECKPOINTS
from dllm_rl.policies.loading import load_policy

SHIPPED: dict[str, tuple[str, dict[str, Any]]] = {
    "autoregressive": ("ar", {}),
    "masked": ("threshold", {"threshold": 0.97}),
    "slot": ("slots", {"slot_threshold": 0.95, "token_threshold": 0.98}),
    "flow": ("flow_exact", {"num_steps": 16}),
    "block": ("threshold", {"threshold": 0.97}),
}
SIZES = ("shipped", "512", "4096", "32768")
PART = 16


def overhead_arms(size: str, batch: int) -> list[Arm]:
    """The same rule twice."""
    words = PreTrainedTokenizerFast.from_pretrained(CHECKPOINTS / "masked")
    policy = load_policy("builtin:masked")
    if size != "shipped":
        # Below the tokenizer's own size the automaton's tokens would have no logits.
        policy = random_policy("masked", words, policy.facts, max(int(size), len(words)), has_end=True)
    prompts = sheet(16).part(0, batch).prompts(policy)
    options = {"num_steps": 32}
    return [
        sampler_arm("free", policy, prompts, "low_confidence", **options),
        sampler_arm("grammar", policy, prompts, "low_confidence", grammar=True, **options),
    ]


def note(arm: Arm, out: Written) -> dict[str, Any]:
    """Forwards and tokens fed."""
    return {"batch": len(out.ids), "nfe": out.nfe, "token_forwards": out.token_forwards, "v": arm.policy.vocab_size}


def overhead(given: argparse.Namespace) -> None:
    """Measure, then print a Markdown table."""
    ledger = Ledger(given.out / "grammar_overhead.json")
    for batch in given.batches:
        for size in SIZES:
            take_turns(overhead_arms(size, batch), ledger, f"{size} | {batch}", given.repeats, note)
    known = ledger.load()
    print("\n| model | batch | NFE free | NFE grammar | ms a forward free | grammar | more a forward | more a plan |")
    print("|---|---|---|---|---|---|---|---|")
    for size in SIZES:
        for batch in given.batches:
            free, bound = (known[f"{size} | {batch} | {arm}"] for arm in ("free", "grammar"))
            # Rows leave the batch as they end, so a forward's cost is taken by the tokens it was fed.
            each = [
                median_of(item) / item["token_forwards"] * free["token_forwards"] / free["nfe"]
                for item in (free, bound)
            ]
            cells = [
                "shipped, 1.2 M" if size == "shipped" else f"random, 20 M, V = {free['v']}",
                str(batch),
                str(free["nfe"]),
                str(bound["nfe"]),
                *(f"{1000 * value:.1f}" for value in each),
                f"{100 * (each[1] / each[0] - 1):+.0f} %",
                f"{100 * (median_of(bound) / median_of(free) - 1):+.0f} %",
            ]
            print("| " + " | ".join(cells) + " |")


def success(given: argparse.Namespace) -> None:
    """Draw what is missing, then print a Markdown table."""
    path = given.out / "grammar_success.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    tasks = sheet(given.tasks)
    for family, (name, options) in SHIPPED.items():
        policy = load_policy(f"builtin:{family}")
        for temperature in (0.0, 1.0):
            for grammar in (False, True):
                sampler = registry.get("sampler", name)(temperature=temperature, grammar=grammar, **options)
                for start in range(0, len(tasks), PART):
                    key = f"{family} | {temperature:g} | {grammar} | {start}"
                    if key in known:
                        continue
                    part = tasks.part(start, min(start + PART, len(tasks)))
                    out = sampler.generate(policy, part.prompts(policy), seed=0)
                    plans = decode(policy, out.ids)
                    known[key] = {
                        "right": part.equal(plans),
                        "parsed": part.parsed(plans),
                        "grounded": part.grounded(plans),
                        "token_forwards": out.token_forwards,
                    }
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(known))
                    print(f"{key}: {sum(known[key]['right'])} of {len(plans)} right", flush=True)
    print_success(known, len(tasks))


def print_success(known: dict[str, Any], count: int) -> None:
    """Before and after, paired."""
    print(f"\n{count} tasks of val")
    print("| family | T | equal to gold | with grammar | parse | with grammar | act on the page | with grammar |")
    print("|---|---|---|---|---|---|---|---|")
    for family in SHIPPED:
        for temperature in ("0", "1"):
            cells = [family, temperature]
            for name in ("right", "parsed", "grounded"):
                for grammar in (False, True):
                    stem = f"{family} | {temperature} | {grammar} | "
                    flags = [flag for key, entry in known.items() if key.startswith(stem) for flag in entry[name]]
                    cells.append(f"{100 * sum(flags) / len(flags):.1f} %")
            print("| " + " | ".join(cells) + " |")


def forwards(given: argparse.Namespace) -> None:
    """Write plans one by one, then print a Markdown table. Both samplers take turns, task by task."""
    tasks = sheet(given.tasks)
    print(f"\n{len(tasks)} tasks of val, batch 1")
    print("| family | T | grammar | NFE | token-forwards | forced tokens | ms a plan | equal to gold |")
    print("|---|---|---|---|---|---|---|---|")
    for family in ("slot", "autoregressive"):
        policy, (name, options) = load_policy(f"builtin:{family}"), SHIPPED[family]
        for temperature in (0.0, 1.0):
            found: dict[bool, list[tuple[float, ...]]] = {False: [], True: []}
            for task in range(len(tasks)):
                part = tasks.part(task, task + 1)
                for grammar, rows in found.items():
                    sampler = registry.get("sampler", name)(temperature=temperature, grammar=grammar, **options)
                    started = time.process_time()
                    out = sampler.generate(policy, part.prompts(policy), seed=0)
                    seconds = time.process_time() - started
                    forced = out.trajectory.events.is_forced()[policy.canvas.visible(out.ids)].float().mean().item()
                    right = part.equal(decode(policy, out.ids))[0]
                    rows.append((out.nfe, out.token_forwards, forced, seconds, right))
            for grammar, rows in found.items():
                nfe, fed, forced, seconds, right = (sum(column) / len(rows) for column in zip(*rows, strict=True))
                print(
                    f"| {family} | {temperature:g} | {'yes' if grammar else 'no'} | {nfe:.1f} | {fed:.0f} | "
                    f"{100 * forced:.0f} % | {1000 * seconds:.0f} | {100 * right:.1f} % |",
                    flush=True,
                )


SECTIONS = {"overhead": overhead, "success": success, "forwards": forwards}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", choices=list(SECTIONS), action="append", help="default: all")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=96)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_samplers"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for section in given.section or SECTIONS:
        SECTIONS[section](given)


if __name__ == "__main__":
    main()
