"""Real training runs of seconds, broken on purpose: the trainer, samplers and objectives of the toolkit on text alone.

A tiny policy is warm-started on plans of which about half are right, so that it has something to gain and to lose. The
environment parses each plan and compares its actions with the gold ones; no browser, no page.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dllm_rl import registry
from dllm_rl.environment import Environment
from dllm_rl.files import read_json, read_rows, write_json
from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans
from dllm_rl.records import plan as plans
from dllm_rl.records.tasks import Fault, FieldResult, GoldField, Observation, Outcome, Task, render_prompt
from dllm_rl.reward import FromFunction
from dllm_rl.session import Session
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.engine import RolloutEngine
from dllm_rl.training.trainer import Trainer
from dllm_rl.training.warmstart import Demonstration, WarmStartConfig, warm_start
from harness.rewards import Shaped
from tests.tiny_policies import tokenizer

NAMES = ("Anna", "Karl", "Rome")
PAGE = Observation(titles=("Join",), controls=())
TASKS = [
    Task(
        id=f"train/text-{index}",
        split="train",
        site="text",
        instruction=f"Name: {name}",
        gold=(GoldField(name="name", kind="text", wanted=(name,)),),
    )
    for index, name in enumerate(NAMES)
]
LINE_WIDTH, NUM_LINES = 12, 2


def gold_plan(name: str) -> str:
    return f'fill p1.e1 "{name}"\nsubmit p1.e3'


class TextEnvironment(Environment):
    """Parses plans. lost: which rollouts of the training the environment loses, by (batch, row)."""

    isolations = ("context",)

    def __init__(self, lost: Callable[[int, int], bool] = lambda batch, row: False) -> None:
        self.lost, self.batch = lost, 0

    def tasks(self, split: str) -> list[Task]:
        return TASKS

    async def observe(self, task: Task) -> Observation:
        return PAGE

    async def run(self, task: Task, plan: str, **settings: Any) -> Outcome:
        return self._outcome(task, plan, is_lost=False)

    async def run_many(self, pairs: Sequence[tuple[Task, str]], **settings: Any) -> list[Outcome]:
        # The final evaluation asks for an isolation; training takes the default.
        is_training = settings.get("isolation") is None
        self.batch += is_training
        return [
            self._outcome(task, text, is_lost=is_training and self.lost(self.batch - 1, row))
            for row, (task, text) in enumerate(pairs)
        ]

    def _outcome(self, task: Task, text: str, *, is_lost: bool) -> Outcome:
        if is_lost:
            return Outcome(task_id=task.id, fault=Fault.ENVIRONMENT, fault_reason="the site is down")
        parsed = plans.parse_plan(text)
        filled = tuple(action.value or "" for action in parsed.actions if action.verb == "fill")[-1:]
        is_submitted = any(action.verb == "submit" for action in parsed.actions)
        wanted = task.gold[0].wanted
        result = FieldResult(
            name="name",
            wanted=wanted,
            server=filled if is_submitted else None,
            dom=filled,
            is_correct=filled == wanted,
            is_default=False,
        )
        return Outcome(
            task_id=task.id,
            is_parsed=bool(text) and not parsed.errors,
            is_submitted=is_submitted,
            is_clean=not parsed.errors,
            fields=(result,),
            num_submissions=int(is_submitted),
            validity_errors=(text,),
        )


def honest(outcome: Outcome) -> float:
    return Shaped()(outcome)


def pays_for_length(outcome: Outcome) -> float:
    """A reward that can be gamed: characters written, whatever they say. Success is still told as it is."""
    text = outcome.validity_errors[0] if outcome.validity_errors else ""
    return min(1.0, len(text) / 80)


def random_policy(family: str) -> BasePolicy:
    """A policy of the lab's size with random weights."""
    torch.manual_seed(0)
    length = LINE_WIDTH * NUM_LINES + 1
    config = TinyConfig(
        vocab_size=len(tokenizer()) + 3,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_columns=length,
        has_time=registry.get("policy", family).reads_time,
    )
    facts = PolicyFacts(family=family, max_prompt=64, canvas_length=length, line_width=LINE_WIDTH, slot_size=4)
    return registry.get("policy", family)(TinyForPlans(config).eval(), tokenizer(), facts)


@functools.cache
def _warm(family: str) -> BasePolicy:
    policy = random_policy(family)
    shown = []
    for task, name in zip(TASKS, NAMES, strict=True):
        others = [other for other in NAMES if other != name]
        mix = [gold_plan(name)] * 4 + [gold_plan(other) for other in others] + [f'fill p1.e1 "{name}"'] * 2
        shown += [Demonstration(prompt=render_prompt(task, PAGE), plan=text) for text in mix]
    settings = WarmStartConfig(passes=24 * 250, batch_size=24, warmup_steps=10, is_mixed_precision=False)
    warm_start(policy, shown, settings)
    return policy


def warm_policy(family: str) -> BasePolicy:
    """A copy of the family's warm-started policy."""
    policy = copy.copy(_warm(family))
    policy.model = copy.deepcopy(policy.model).eval()
    return policy


def train(
    folder: Path,
    *,
    family: str = "autoregressive",
    objective: str = "grpo",
    options: dict[str, Any] | None = None,
    environment: TextEnvironment | None = None,
    reward: Callable[[Outcome], float] = honest,
    then: tuple[int, dict[str, Any]] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Train, and return the rows of metrics. then: other settings with which the run is continued from a step on."""
    # Healthy unless told otherwise; three prompts of eight plans a step.
    config = {"steps": 40, "prompts_per_step": 3, "group_size": 8, "learning_rate": 2e-4, "checkpoint_every": 1000}
    parts = [(None, {})] if then is None else [(then[0], {}), (None, then[1])]
    for until, changed in parts:
        if changed:
            _forget_settings(folder)
        Trainer(
            engine=RolloutEngine(
                policy=warm_policy(family),
                sampler=registry.get("sampler", registry.get("policy", family).usual_sampler)(),
                environment=Session(environment or TextEnvironment()),
                reward=FromFunction(reward),
            ),
            objective=registry.build("objective", objective, {"advantage": "centred", "beta": 0.0} | (options or {})),
            tasks=TASKS,
            config=TrainConfig(**(config | settings | changed)),
            run_dir=folder,
        ).train(until=until)
    return read_rows(folder / "metrics.jsonl")


def _forget_settings(folder: Path) -> None:
    """Let a run go on under other settings, which a trainer refuses."""
    state = folder / "checkpoint" / "state.json"
    write_json(state, {key: value for key, value in read_json(state).items() if key != "made_by"})
