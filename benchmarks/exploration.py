"""Which sampler draws where it matters: what decides whether a plan with right fields succeeds, the draw or the task.

`python -m benchmarks.exploration builtin:masked --slip .75` compares the rules of a policy's family. Each writes the
same groups (`--tasks` of `val` x `--group` plans) at temperature 1. Methods that compare the plans of a group learn the
finish from mixed groups alone. Rules that commit what they are surest of first draw the same finish for all plans of a
task.

`--slip` tunes the policy first, on demonstrations of which so many end in `check REF` in place of `submit REF`: a near
miss that one token decides. `--mix` keeps so much of the tuning and takes the rest of the weights from before it, which
calibrates how sure of the slip the policy is. Without `--preset` plans are judged by their text: right fields as
`harness.judge` scores them without a browser, finished by the gold plan's last line. With it they are run in the
preset's environment.
One thread. Kept arm by arm: a run that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Protocol

import torch

from benchmarks.frontier import forwards
from benchmarks.plans import decode
from dllm_rl import registry, seeding
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.loading import save_policy
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Observation, Task, render_prompt
from dllm_rl.records.types import Completions
from dllm_rl.training.conversion import mixed_groups, within_share
from dllm_rl.training.warmstart import Demonstration, WarmStartConfig, warm_start
from experiments.design.config import build_session
from experiments.design.presets import load_preset
from experiments.run.policies import load
from harness.judge import score_plan
from harness.sites import expected_page, gold_plan, make_site, make_tasks, site_defaults

_UNMASKING: dict[str, tuple[str, dict[str, Any]]] = {
    "threshold .97": ("threshold", {"threshold": 0.97}),
    "epsilon_greedy .2": ("epsilon_greedy", {"epsilon": 0.2}),
    "epsilon_greedy .5": ("epsilon_greedy", {"epsilon": 0.5}),
    "threshold .97, blocks of 12": ("threshold", {"threshold": 0.97, "block_length": 12}),
    "low_confidence, 32 steps": ("low_confidence", {"num_steps": 32}),
    "low_confidence, one a step": ("low_confidence", {"num_steps": None}),
    "low_confidence, one a step, blocks of 12": ("low_confidence", {"num_steps": None, "block_length": 12}),
    "annealed from 1, 32 steps": ("annealed", {"num_steps": 32, "order_temperature": 1.0}),
    "annealed from 4, 32 steps": ("annealed", {"num_steps": 32, "order_temperature": 4.0}),
    "annealed from 4, one a step": ("annealed", {"num_steps": None, "order_temperature": 4.0}),
    "random, 32 steps": ("random", {"num_steps": 32}),
    "random, one a step": ("first_hitting", {}),
    "entropy_bound .1": ("entropy_bound", {"gamma": 0.1}),
}
ARMS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "autoregressive": {"ar": ("ar", {})},
    "masked": _UNMASKING,
    "block": {name: arm for name, arm in _UNMASKING.items() if "blocks" not in name},
    "slot": {
        "slots .95/.98": ("slots", {"slot_threshold": 0.95, "token_threshold": 0.98}),
        "slots .6/.3": ("slots", {}),
        "slots, one at a time": ("slots", {"slot_threshold": 1.0, "token_threshold": 1.0}),
    },
    "flow": {
        "flow_exact, 8 steps": ("flow_exact", {"num_steps": 8}),
        "flow_exact, 16 steps": ("flow_exact", {"num_steps": 16}),
        "flow_exact, 32 steps": ("flow_exact", {"num_steps": 32}),
    },
}
COLUMNS = (
    "rule", "right", "conversion", "within-group share", "95 % interval", "mixed right groups", "live groups",
    "forwards a plan", "ms a plan",
)  # fmt: skip
_NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one plan: every field right; accepted with every field right."""

    is_right: bool
    is_success: bool


class World(Protocol):
    """Tasks, what can be seen of them, and what becomes of plans."""

    @property
    def tasks(self) -> Sequence[Task]: ...

    @property
    def pages(self) -> Sequence[Observation]: ...

    def judge(self, numbers: Sequence[int], plans: Sequence[str]) -> list[Verdict]:
        """Judge plans for the tasks of these numbers."""
        ...


class TextWorld:
    """Judges forms by the text of plans, in milliseconds."""

    def __init__(self, count: int) -> None:
        self.tasks = make_tasks("val", count=count)
        self.sites = [make_site(task.site) for task in self.tasks]
        self.pages = [expected_page(site) for site in self.sites]

    def judge(self, numbers: Sequence[int], plans: Sequence[str]) -> list[Verdict]:
        """Right: the plan would be perfect if the gold plan's last line followed. A success has that line itself."""
        return [self._verdict(number, plan) for number, plan in zip(numbers, plans, strict=True)]

    def _verdict(self, number: int, plan: str) -> Verdict:
        task, page = self.tasks[number], self.pages[number]
        finish = gold_plan(task, page).splitlines()[-1]
        defaults = site_defaults(make_site(task.site))
        is_right = score_plan(task, page, defaults, f"{plan}\n{finish}") == 1.0
        (last,) = parse_plan(finish).actions
        is_finished = any((action.verb, action.ref) == (last.verb, last.ref) for action in parse_plan(plan).actions)
        return Verdict(is_right=is_right, is_success=is_right and is_finished)


class RunWorld:
    """Runs plans in an environment.

    Args:
        session: Open, or opened when first needed.
    """

    def __init__(self, session: Any, count: int) -> None:
        self.session = session
        self.tasks = session.tasks("val")[:count]
        self.pages = session.observe_many(self.tasks)

    def judge(self, numbers: Sequence[int], plans: Sequence[str]) -> list[Verdict]:
        """What the outcomes say."""
        pairs = [(self.tasks[number], plan) for number, plan in zip(numbers, plans, strict=True)]
        outcomes = self.session.run_many(pairs)
        return [Verdict(is_right=outcome.all_correct, is_success=outcome.is_success) for outcome in outcomes]


@contextmanager
def world_of(preset: str | None, count: int) -> Iterator[World]:
    """The first `count` tasks of `val`, of a preset's environment or of the built-in forms, judged by text."""
    if preset is None:
        yield TextWorld(count)
        return
    with build_session(load_preset(preset).environment) as session:
        yield RunWorld(session, count)


def near_miss_start(checkpoint: str, given: argparse.Namespace) -> BasePolicy:
    """The policy, tuned to slip at its last line."""
    folder, passes = given.out / "policy", given.passes
    if not (folder / "config.json").is_file():
        tasks = make_tasks("train", count=passes, sites_per_kind=20_000)
        pages = [expected_page(make_site(task.site)) for task in tasks]
        slips = seeding.python_random(0, "exploration-slips")
        shown = [
            Demonstration(
                prompt=render_prompt(task, page), plan=_slipped(gold_plan(task, page), slips.random() < given.slip)
            )
            for task, page in zip(tasks, pages, strict=True)
        ]
        settings = WarmStartConfig(
            passes=passes, batch_size=32, learning_rate=5e-4, warmup_steps=10, decay_share=0.6, is_mixed_precision=False
        )
        policy = load(checkpoint)
        warm_start(policy, shown, settings, on_step=_show)
        save_policy(policy, folder)
    before, policy = load(checkpoint).model.state_dict(), load(str(folder))
    after = policy.model.state_dict()
    policy.model.load_state_dict({name: torch.lerp(before[name], after[name], given.mix) for name in after})
    return policy


def _slipped(plan: str, is_slip: bool) -> str:
    body, _, finish = plan.rpartition("\n")
    return f"{body}\n{finish.replace('submit', 'check', 1)}" if is_slip else plan


def _show(step: int, num_steps: int, loss: float) -> None:
    if step % 10 == 0 or step == num_steps:
        print(f"tuning: step {step}/{num_steps}, loss {loss:.3f}", flush=True)


def measure(
    policy: BasePolicy, world: World, arm: tuple[str, dict[str, Any]], *, group: int, seed: int
) -> dict[str, Any]:
    """Write a group of plans for each task under one rule and judge them."""
    name, options = arm
    sampler = registry.get("sampler", name)(temperature=1.0, **options)
    texts = [render_prompt(task, page) for task, page in zip(world.tasks, world.pages, strict=True)]
    numbers = [number for number in range(len(texts)) for _ in range(group)]
    prompts = policy.prompts([texts[number] for number in numbers], list(range(len(numbers))))
    prompts = replace(prompts, pages=tuple(world.pages[number] for number in numbers))
    started = time.process_time()
    drawn = sampler.generate(policy, prompts, seed=seed)
    seconds = time.process_time() - started
    verdicts = world.judge(numbers, decode(policy, drawn.ids))
    return {
        "group": numbers,
        "right": [verdict.is_right for verdict in verdicts],
        "success": [verdict.is_success for verdict in verdicts],
        "forwards": _forwards(drawn),
        "seconds": seconds,
    }


def _forwards(drawn: Completions) -> list[int]:
    """How many forwards each row took; every step of the flow family redraws all of it."""
    trajectory = drawn.trajectory
    return forwards(drawn) if trajectory.time is None else [trajectory.num_steps] * len(drawn.ids)


def table(known: dict[str, Any], arms: Sequence[str]) -> str:
    """Markdown, a line a rule."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {name} | {' | '.join(_line(known[name]))} |" for name in arms if name in known]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> list[str]:
    groups, success, right = (torch.tensor(row[name]) for name in ("group", "success", "right"))
    chosen = right.nonzero().squeeze(1)
    means = success.double().reshape(int(groups.max()) + 1, -1).mean(dim=1)
    low, high = _interval(success[chosen], groups[chosen])
    return [
        f"{100 * mean(row['right']):.0f} %",
        _shown(float(success[chosen].double().mean()) if len(chosen) else None),
        _shown(within_share(success[chosen], groups[chosen])),
        "-" if low is None else f"{low:.2f} to {high:.2f}",
        _shown(mixed_groups(success[chosen], groups[chosen])),
        f"{float(((means > 0) & (means < 1)).double().mean()):.2f}",
        f"{mean(row['forwards']):.1f}",
        f"{1000 * row['seconds'] / len(groups):.0f}",
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(success: torch.Tensor, groups: torch.Tensor) -> tuple[float | None, float | None]:
    """Percentile bootstrap of the within-group share over tasks."""
    members = [(groups == group).nonzero().squeeze(1) for group in groups.unique()]
    draw, found = seeding.python_random(0, "exploration-bootstrap"), []
    for _ in range(_NUM_RESAMPLES):
        chosen = draw.choices(members, k=len(members))
        ids = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor([len(index) for index in chosen]))
        share = within_share(success[torch.cat(chosen)], ids) if chosen else None
        if share is not None:
            found.append(share)
    if not found:
        return None, None
    found.sort()
    return found[int(0.025 * len(found))], found[int(0.975 * (len(found) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="builtin:FAMILY, or a policy's folder")
    parser.add_argument("--slip", type=float, help="share of demonstrations that slip; default: the policy as it is")
    parser.add_argument("--passes", type=int, default=1200, help="demonstrations that it is tuned on")
    parser.add_argument("--mix", type=float, default=1.0, help="share of the tuned weights in the policy")
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--arms", nargs="+", help="default: all of the family")
    parser.add_argument("--preset", help="run plans in this preset's environment instead of judging their text")
    parser.add_argument("--out", type=Path, default=Path("runs/exploration"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    policy = load(given.checkpoint) if given.slip is None else near_miss_start(given.checkpoint, given)
    arms = ARMS[policy.family]
    unknown = [name for name in given.arms or [] if name not in arms]
    if unknown:
        parser.error(f"no arms {', '.join(unknown)} on the {policy.family} family; known: {', '.join(arms)}")
    path = given.out / f"{policy.family}.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    with world_of(given.preset, given.tasks) as world:
        for name in given.arms or arms:
            if name not in known:
                known[name] = measure(policy, world, arms[name], group=given.group, seed=0)
                path.write_text(json.dumps(known))
            print(table(known, [name]).splitlines()[-1], flush=True)
    print("\n" + table(known, list(arms)))


if __name__ == "__main__":
    main()
