"""How often a policy finishes what it filled right: `python -m benchmarks.calibration builtin:masked_finish [...]`.

A warm start is worth training where right plans are finished sometimes, on every task, and by the draw: see
docs/results/warm_starts.md. Plans are judged as text, by the gold plan's actions: those on fields in any order, and
the rest (buttons, and what the newer design added) in theirs. `--browser` runs the sampled plans in Chromium, too.

- *at the decision*: probability of the finishing token against the unfinished plan's, all other columns clean, on tasks
  where one column decides; mean and spread over tasks.
- *mixed*: of the groups with two right plans or more, those with finished and with unfinished ones.
"""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.plan import Action, parse_plan
from dllm_rl.records.tasks import Observation, Task, render_prompt
from dllm_rl.session import Session
from experiments.design.config import build_sampler
from experiments.design.presets import load_preset
from experiments.run.policies import load
from harness.environments import FormEnvironment, FormSettings
from harness.sites import OBSTACLES, expected_page, gold_plan, make_site, make_tasks, unfinished_plan

PRESETS = ("grid16", "block")
FLOW_TIME = 0.9
NUM_NOISES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A task with its page, and the two plans between which the last act decides."""

    task: Task
    page: Observation
    gold: str
    unfinished: str

    @classmethod
    def of(cls, task: Task) -> Case:
        """Read the page as its schema tells it."""
        page = expected_page(make_site(task.site))
        return cls(task=task, page=page, gold=gold_plan(task, page), unfinished=unfinished_plan(task, page))

    @property
    def prompt(self) -> str:
        """What the policy reads."""
        return render_prompt(self.task, self.page)

    def parts(self, plan: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """Actions on fields, sorted, and all others in order."""
        names = {item.name for item in make_site(self.task.site).extras}
        others = {
            item.ref for item in self.page.controls if item.field in names or (item.kind == "button" and not item.field)
        }
        actions = parse_plan(plan).actions
        return sorted(map(_key, (item for item in actions if item.ref not in others))), [
            _key(item) for item in actions if item.ref in others
        ]

    def is_right(self, plan: str) -> bool:
        """Whether it does to the fields what the gold plan does."""
        return self.parts(plan)[0] == self.parts(self.gold)[0]

    def is_finished(self, plan: str) -> bool:
        """Whether it ends as the gold plan does."""
        return self.parts(plan)[1] == self.parts(self.gold)[1]


def _key(action: Action) -> tuple[str, ...]:
    return action.ref, action.verb, action.value or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Shares of plans at temperature 1, unless greedy; see the module."""

    decision_mean: float
    decision_sd: float
    right: float
    finished_if_right: float
    sd_over_tasks: float
    mixed: float
    num_groups_right: int
    near_miss: float
    success: float
    parsed: float
    greedy_right: float
    greedy_success: float
    seconds: float


@torch.no_grad()
def at_the_decision(policy: BasePolicy, cases: Sequence[Case]) -> torch.Tensor:
    """Probability of the finishing token against the unfinished one's, of each case in which one column decides."""
    found = []
    for case in cases:
        gold, other = (torch.tensor(policy.canvas.encode(plan)) for plan in (case.gold, case.unfinished))
        columns = (gold != other).nonzero().flatten()
        if len(columns) == 1:
            logits = _logits(policy, case.prompt, gold, columns)
            pair = torch.stack([gold[columns], other[columns]]).flatten()
            found.append(logits[:, pair].softmax(-1).mean(0)[0])
    return torch.stack(found) if found else torch.full((1,), torch.nan)


def _logits(policy: BasePolicy, prompt: str, canvas: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Logits (n, v) of one column with all others clean: it is hidden, or in the flow family noise of several draws."""
    if policy.family != "flow":
        hidden = canvas.index_fill(0, columns, policy.process.blank_id)
        return policy.logits(policy.prompts([prompt], [0]), hidden[None], columns=columns)[0]
    source: Any = torch.tensor(policy.source)  # type: ignore[attr-defined]
    noise = source[torch.randint(len(source), (NUM_NOISES,), generator=torch.Generator().manual_seed(0))]
    noisy = canvas.repeat(NUM_NOISES, 1)
    noisy[:, columns] = noise[:, None]
    prompts = policy.prompts([prompt] * NUM_NOISES, range(NUM_NOISES))
    return policy.logits(prompts, noisy, columns=columns, time=torch.full((NUM_NOISES,), FLOW_TIME))[:, 0]


def write(policy: BasePolicy, sampler: Any, cases: Sequence[Case], *, num: int, seed: int) -> list[list[str]]:
    """`num` plans of each case."""
    plans: list[list[str]] = []
    for start in range(0, len(cases), 8):
        part = cases[start : start + 8]
        rows = [number * 1_000_003 + start + at for at in range(len(part)) for number in range(num)]
        prompts = policy.prompts([case.prompt for case in part for _ in range(num)], rows)
        texts = [policy.canvas.decode(ids) for ids in sampler.generate(policy, prompts, seed=seed).ids]
        plans += [texts[at : at + num] for at in range(0, len(texts), num)]
    return plans


def judged(cases: Sequence[Case], plans: list[list[str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Which plans (tasks, plans) are right, and which are finished."""
    right = torch.tensor([[case.is_right(plan) for plan in own] for case, own in zip(cases, plans, strict=True)])
    done = torch.tensor([[case.is_finished(plan) for plan in own] for case, own in zip(cases, plans, strict=True)])
    return right, done


def spread(right: torch.Tensor, done: torch.Tensor) -> float:
    """Spread over tasks of the probability to finish right plans, without what few plans a task add to it.

    The mean product of two plans of one task estimates the second moment of that probability.
    """
    count, good = right.sum(1).float(), (right & done).sum(1).float()
    some = count >= 2
    if not some.any():
        return float("nan")
    mean = float(good[some].sum() / count[some].sum())
    pairs = (good * (good - 1))[some].sum() / (count * (count - 1))[some].sum()
    return max(0.0, float(pairs) - mean**2) ** 0.5


def calibrate(
    policy: BasePolicy, sampler: Any, cases: Sequence[Case], *, num: int, seed: int
) -> tuple[Calibration, list[list[str]]]:
    """Measure one policy; its sampled plans come with the figures."""
    started = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    decision = at_the_decision(policy, cases)
    sampled = write(policy, sampler, cases, num=num, seed=seed)
    right, done = judged(cases, sampled)
    greedy_right, greedy_done = judged(cases, write(policy, replace(sampler, temperature=0.0), cases, num=1, seed=seed))
    some = right.sum(1) >= 2
    mixed = (right & done).any(1) & (right & ~done).any(1)
    parsed = [parse_plan(plan).is_parsed for own in sampled for plan in own]
    figures = Calibration(
        decision_mean=float(decision.mean()),
        decision_sd=float(decision.std()),
        right=float(right.float().mean()),
        finished_if_right=float((right & done).sum() / right.sum().clamp(min=1)),
        sd_over_tasks=spread(right, done),
        mixed=float((mixed & some).sum() / some.sum().clamp(min=1)),
        num_groups_right=int(some.sum()),
        near_miss=float((right & ~done).float().mean()),
        success=float((right & done).float().mean()),
        parsed=sum(parsed) / len(parsed),
        greedy_right=float(greedy_right.float().mean()),
        greedy_success=float((greedy_right & greedy_done).float().mean()),
        seconds=resource.getrusage(resource.RUSAGE_SELF).ru_utime - started,
    )
    return figures, sampled


def in_the_browser(cases: Sequence[Case], plans: list[list[str]], settings: FormSettings) -> dict[str, float]:
    """Success and near misses of the same plans in Chromium, and the share on which the text agrees."""
    right, done = judged(cases, plans)
    pairs = [(case.task, plan) for case, own in zip(cases, plans, strict=True) for plan in own]
    with Session(FormEnvironment(settings)) as session:
        outcomes = session.run_many(pairs)
    success = torch.tensor([item.is_success for item in outcomes])
    near = torch.tensor([item.is_near_miss for item in outcomes])
    agree = (success == (right & done).flatten()) & (near == (right & ~done).flatten())
    return {
        "browser_success": float(success.float().mean()),
        "browser_near_miss": float(near.float().mean()),
        "browser_agrees": float(agree.float().mean()),
    }


def usual_sampler(family: str) -> Any:
    """The sampler of this family in the presets."""
    for name in PRESETS:
        levels = load_preset(name).policies
        if family in levels:
            return build_sampler(levels[family].sampler)
    raise SystemExit(f"no preset of {', '.join(PRESETS)} has the family {family}")


def main() -> None:
    """Print one JSON line a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", nargs="+", help="builtin:<name>, or folders")
    parser.add_argument("--split", default="val")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--group", type=int, default=8, help="plans a task")
    parser.add_argument("--obstacles", nargs="+", choices=OBSTACLES, default=["second_button"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--browser", type=int, default=0, metavar="TASKS", help="run the plans of so many tasks, too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    obstacles = tuple(chosen.obstacles)
    cases = [Case.of(task) for task in make_tasks(chosen.split, count=chosen.tasks, obstacles=obstacles)]
    for name in chosen.checkpoints:
        policy = load(name)
        figures, plans = calibrate(policy, usual_sampler(policy.family), cases, num=chosen.group, seed=chosen.seed)
        record: dict[str, Any] = {"checkpoint": name, **asdict(figures)}
        if chosen.browser:
            settings = FormSettings(design="newer", obstacles=obstacles, isolation="arena")
            record |= in_the_browser(cases[: chosen.browser], plans[: chosen.browser], settings)
        print(
            json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in record.items()})
        )


if __name__ == "__main__":
    main()
