"""Samplers against two plainly written baselines: `python -m benchmarks.samplers [--section NAME] [--report]`.

Sections: `trained` (the shipped policies on real tasks) and `V=512`, `V=8192`, `V=32768` (20 million random parameters,
64 columns behind random prompts of 24, 128 and 256 tokens; EOS banned, so that all arms write equally much). Arms take
turns on one thread; seconds are processor time, medians. Every measurement is kept at once: a section that was cut off
goes on where it stopped. `--report` writes the table and the plot. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from benchmarks.arms import Arm, Ledger, Written, median_of, random_policy, sampler_arm, take_turns, textbook_arm
from benchmarks.plans import Sheet, decode, sheet
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.checkpoints import CHECKPOINTS
from dllm_rl.policies.loading import load_policy
from dllm_rl.records.types import Prompts

RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "low_confidence": ("low_confidence", {}),
    "low_confidence, 32 steps": ("low_confidence", {"num_steps": 32}),
    "threshold .9": ("threshold", {}),
    "threshold .97": ("threshold", {"threshold": 0.97}),
    "factor": ("factor", {}),
    "entropy_bound": ("entropy_bound", {}),
    "klass": ("klass", {}),
    "dilated": ("dilated", {}),
    "revise .9": ("revise", {}),
    "soft_threshold .97": ("soft_threshold", {"threshold": 0.97}),
    "epsilon_greedy .97": ("epsilon_greedy", {"threshold": 0.97}),
    "rpd": ("rpd", {}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "slot": ("slots", {"slot_threshold": 0.95, "token_threshold": 0.98}),
    "flow": ("flow_exact", {"num_steps": 16}),
    "block": ("threshold", {"threshold": 0.97}),
}
RANDOM_RULES = {
    "low_confidence": ("low_confidence", {"num_steps": 64}),
    "low_confidence, 8 steps": ("low_confidence", {"num_steps": 8}),
    "threshold .9": ("threshold", {}),
}
PROMPTS = {512: 24, 8192: 128, 32768: 256}
SECTIONS = ["trained", *(f"V={size}" for size in PROMPTS)]
COLUMNS = 64
COLUMN_NAMES = (
    "arm", "right", "parses", "acts on the page", "NFE", "token-forwards a plan", "tokens/s", "ms a plan", "x textbook"
)  # fmt: skip
HEAD = """# Samplers measured

By `python -m benchmarks.samplers`, {day}: one thread, arms in turns, processor time, medians. `right` is the share of
plans equal to the gold plan, `NFE` the model calls a batch, `x textbook` the speed against the textbook loop; arms that
wrote its very tokens say so. Random rows have no text worth judging. The trained rows time 16 plans, of
which `right` is no more than a hint (25 points are noise): success over 1,000 tasks is in
[what was measured](samplers.md).
"""
PICTURE = "\n![plans equal to gold against time a plan](images/samplers_pareto.png)\n"


def trained_arms(tasks: Sheet) -> list[Arm]:
    """The shipped policies: both baselines, every rule with and without the grammar, and the other families."""
    masked, ar = load_policy("builtin:masked"), load_policy("builtin:autoregressive")
    prompts, length = tasks.prompts(masked), masked.facts.canvas_length
    arms = [
        textbook_arm(masked, prompts),
        sampler_arm("ar with cache", ar, prompts, "ar"),
        sampler_arm("ar with cache + grammar", ar, prompts, "ar", grammar=True),
    ]
    for name, (rule, options) in RULES.items():
        settings = {"num_steps": length, **options}
        arms.append(sampler_arm(name, masked, prompts, rule, **settings))
        arms.append(sampler_arm(f"{name} + grammar", masked, prompts, rule, grammar=True, **settings))
    for family, (sampler, options) in OTHERS.items():
        if (CHECKPOINTS / family).is_dir():
            arms.append(
                sampler_arm(f"{family}: {sampler}", load_policy(f"builtin:{family}"), prompts, sampler, **options)
            )
    return arms


def random_arms(vocabulary: int, batch: int) -> list[Arm]:
    """Random weights: their text means nothing, their times do."""
    words = PreTrainedTokenizerFast.from_pretrained(CHECKPOINTS / "masked")
    facts = PolicyFacts(
        family="masked", max_prompt=512, canvas_length=COLUMNS, block_size=16, mask_id=min(2, vocabulary - 1)
    )
    generator = torch.Generator().manual_seed(0)
    shape = (batch, PROMPTS[vocabulary])
    ids = torch.randint(10, vocabulary, shape, generator=generator)
    prompts = Prompts(ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), row_ids=torch.arange(batch))
    masked, ar, block = (
        random_policy(family, words, facts, vocabulary, has_end=False)
        for family in ("masked", "autoregressive", "block")
    )
    arms = [textbook_arm(masked, prompts), sampler_arm("ar with cache", ar, prompts, "ar")]
    arms += [
        sampler_arm(f"block of 16, {steps} steps", block, prompts, "low_confidence", num_steps=steps)
        for steps in (8, 64)
    ]
    return arms + [
        sampler_arm(name, masked, prompts, rule, **options) for name, (rule, options) in RANDOM_RULES.items()
    ]


def note_of(batch: int, tasks: Sheet | None, policy: BasePolicy, out: Written) -> dict[str, Any]:
    """What an arm wrote; `right` is equality with the gold plan."""
    note: dict[str, Any] = {
        "batch": batch,
        "nfe": out.nfe,
        "token_forwards": out.token_forwards,
        "tokens": int(policy.canvas.visible(out.ids).sum()),
        "ids": hash(tuple(out.ids.flatten().tolist())),
    }
    if tasks is not None:
        plans = decode(policy, out.ids)
        note |= {"right": sum(tasks.equal(plans)), "parsed": sum(tasks.parsed(plans)), "of": len(plans)}
        note |= {"grounded": sum(tasks.grounded(plans))}
    return note


def run_section(section: str, batch: int, given: argparse.Namespace) -> None:
    """Measure one section at one batch size."""
    ledger = Ledger(given.out / "samplers.json")
    if section != "trained":
        arms = _wanted(random_arms(int(section.removeprefix("V=")), batch), given.arms)
        take_turns(
            arms, ledger, f"{section} | {batch}", given.repeats, lambda arm, out: note_of(batch, None, arm.policy, out)
        )
        return
    tasks = sheet(given.tasks)
    for start in range(0, given.tasks, batch):
        part = tasks.part(start, min(start + batch, given.tasks))
        take_turns(
            _wanted(trained_arms(part), given.arms),
            ledger,
            f"trained | {batch} | {start}",
            given.repeats,
            lambda arm, out, part=part: note_of(len(part), part, arm.policy, out),
        )


def _wanted(arms: list[Arm], starts: Sequence[str]) -> list[Arm]:
    """The arms whose names start so; all for none. Raises ConfigError where that leaves none."""
    kept = [arm for arm in arms if not starts or arm.name.startswith(tuple(starts))]
    if not kept:
        raise ConfigError(f"no arm starts with {', '.join(starts)}. Arms: {', '.join(arm.name for arm in arms)}")
    return kept


def rows_of(ledger: Ledger) -> list[dict[str, Any]]:
    """One row a section, batch size and arm: sums of medians over the tasks' parts."""
    rows: dict[tuple[str, int, str], dict[str, Any]] = {}
    for key, entry in sorted(ledger.load().items(), key=_place):
        section, batch, *_, arm = key.split(" | ")
        row = rows.setdefault((section, int(batch), arm), {"runs": 0, "seconds": 0.0, "plans": 0})
        row["seconds"] += median_of(entry)
        row["runs"] += 1
        row["plans"] += entry["batch"]
        row["repeats"] = min(row.get("repeats", 1 << 30), len(entry["seconds"]))
        for name in ("nfe", "token_forwards", "tokens", "right", "parsed", "grounded", "of"):
            row[name] = row.get(name, 0) + entry.get(name, 0)
        row["ids"] = (*row.get("ids", ()), entry["ids"])
    return [{"section": key[0], "batch": key[1], "arm": key[2], **row} for key, row in rows.items()]


def _place(item: tuple[str, Any]) -> tuple[int, int]:
    """Of a measurement in the table: trained policies, then by vocabulary and batch size; arms stay in their order."""
    section, batch, *_ = item[0].split(" | ")
    return int(section.removeprefix("V=")) if section != "trained" else 0, int(batch)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a part a section and batch size."""
    lines: list[str] = []
    for section, batch in dict.fromkeys((row["section"], row["batch"]) for row in rows):
        mine = [row for row in rows if (row["section"], row["batch"]) == (section, batch)]
        base = {row["arm"]: row for row in mine}.get("textbook loop")
        first = mine[0]
        lines += [f"\n## {section}, batch {batch}: {first['plans']} plans, medians of {first['repeats']}\n"]
        lines += [f"| {' | '.join(COLUMN_NAMES)} |", "|---" * len(COLUMN_NAMES) + "|"]
        for row in mine:
            share = [
                f"{100 * row[name] / row['of']:.1f} %" if row["of"] else "" for name in ("right", "parsed", "grounded")
            ]
            speed = base["seconds"] / base["plans"] / (row["seconds"] / row["plans"]) if base else float("nan")
            same = " (same tokens)" if base and row is not base and row["ids"] == base["ids"] else ""
            cells = [
                row["arm"] + same,
                *share,
                f"{row['nfe'] / row['runs']:.1f}",
                f"{row['token_forwards'] / row['plans']:.0f}",
                f"{row['tokens'] / row['seconds']:.0f}",
                f"{1000 * row['seconds'] / row['plans']:.1f}",
                f"{speed:.2f}",
            ]
            lines += ["| " + " | ".join(cells) + " |"]
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Share of right plans against time a plan, for the trained policies; the line joins what nothing beats."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    batches = sorted({row["batch"] for row in rows if row["section"] == "trained"})
    figure, axes = pyplot.subplots(1, len(batches) or 1, figsize=(6.5 * (len(batches) or 1), 4.5), squeeze=False)
    # Names would cover one another, so points bear numbers, and the key stands beside.
    arms = list(dict.fromkeys(row["arm"] for row in rows if row["section"] == "trained"))
    for axis, batch in zip(axes[0], batches, strict=False):
        points = [
            (1000 * row["seconds"] / row["plans"], 100 * row["right"] / row["of"], row["arm"])
            for row in rows
            if row["section"] == "trained" and row["batch"] == batch
        ]
        front = [point for point in points if not any(p[0] < point[0] and p[1] >= point[1] for p in points)]
        axis.plot([p[0] for p in sorted(front)], [p[1] for p in sorted(front)], color="#b0b0b0", zorder=0)
        for ms, right, name in points:
            axis.plot(ms, right, "s" if "grammar" in name else "o", color="#b5482a" if "grammar" in name else "#3b6ea5")
            number = str(arms.index(name) + 1)
            axis.annotate(number, (ms, right), fontsize=7, xytext=(0, 5), textcoords="offset points", ha="center")
        axis.set(
            xlabel="processor time a plan (ms, one thread)",
            ylabel="plans equal to gold (%)",
            xscale="log",
            title=f"batch {batch}",
        )
    key = "\n".join(f"{number:>2}  {name}" for number, name in enumerate(arms, start=1))
    figure.tight_layout(rect=(0, 0, 1 - 2.6 / figure.get_figwidth(), 1))
    figure.text(1 - 2.5 / figure.get_figwidth(), 0.95, key, fontsize=7.5, va="top", linespacing=1.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


def report(given: argparse.Namespace) -> None:
    """Table and plot of what has been measured."""
    rows = rows_of(Ledger(given.out / "samplers.json"))
    given.docs.mkdir(parents=True, exist_ok=True)
    has_plans = any(row["section"] == "trained" for row in rows)
    (given.docs / "bench_samplers.md").write_text(
        HEAD.format(day=date.today()) + (PICTURE if has_plans else "") + table(rows)
    )
    if has_plans:
        plot(rows, given.docs / "images" / "samplers_pareto.png")
    print(f"wrote {given.docs}/bench_samplers.md{' and images/samplers_pareto.png' if has_plans else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", choices=SECTIONS, action="append", help="default: all")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--arms", nargs="+", default=[], help="only arms whose names start so; default: all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=48, help="tasks of the trained section")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_samplers"))
    parser.add_argument("--docs", type=Path, default=Path("docs/results"))
    parser.add_argument("--report", action="store_true", help="only write the table and the plot of what is measured")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.report:
        for section in given.section or SECTIONS:
            for batch in given.batches:
                run_section(section, batch, given)
    report(given)


if __name__ == "__main__":
    main()
