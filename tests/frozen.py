"""Frozen numbers of every registered component, of the trainer and of the evaluation, so that none changes without a
raised version.

`python -m tests.frozen` writes `tests/frozen.json` anew. It refuses where numbers changed and the version did not.
Another release of PyTorch may change all of them at once: delete the file first.
"""

from __future__ import annotations

import functools
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gaming_alarm import HACKS, simulate
from dllm_rl import registry
from dllm_rl.environment import Environment
from dllm_rl.files import read_rows
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.tasks import FieldResult, Outcome, Task
from dllm_rl.records.types import LossInputs, Rollouts
from dllm_rl.reward import OutcomeReward, scores
from dllm_rl.session import Session
from dllm_rl.testing.policies import prompts_of, random_policy
from dllm_rl.testing.reward import ATTEMPTS, evidence_of
from dllm_rl.training.engine import EVALUATION_VERSION, RolloutEngine, evaluate
from dllm_rl.training.intermediate import draw_answers
from dllm_rl.training.trainer import VERSION
from experiments.analysis.collapse.detectors import VERSION as DETECTORS
from experiments.analysis.collapse.online import OnlineDiagnosis
from experiments.design.units import task_digest
from harness.environments import BrowserEnvironment
from harness.environments.base import WORLDS
from harness.environments.gymnasium import FORMS_ID
from tests.dllm_rl.training.test_trainer import make
from tests.experiments.synthetic import metrics_of
from tests.tiny_policies import PROMPTS, make_tiny_policy

FILE = Path(__file__).with_name("frozen.json")
Numbers = dict[str, list[Any]]
# Settings under which an environment's tasks are frozen, where its defaults are not all that it has.
ENVIRONMENT_OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "forms": {world: {"world": world} for world in WORLDS},
    "gymnasium": {"tasks": {"id": FORMS_ID}},
}
# Options under which a reward is frozen that has none by default.
REWARD_OPTIONS: dict[str, dict[str, Any]] = {
    "combined": {"base": {"reward": "outcome"}, "shaping": [{"reward": "rule_tree", "options": {"order": "strict"}}]},
    "flip": {"inverter": "plain"},
    # Its version is that of `Judge`: raise both.
    "judge": {"file": str(Path(__file__).with_name("frozen_judge.json"))},
}
# Rewards of a model that does not ship: their own tests measure them.
WITH_MODELS = frozenset({"endpoint_judge", "embedder"})
SAMPLERS = {
    "autoregressive": "ar",
    "masked": "low_confidence",
    "block": "low_confidence",
    "slot": "slots",
    "flow": "flow_exact",
}


@functools.cache
def real(family: str) -> tuple[BasePolicy, Rollouts]:
    """A tiny policy with two groups of sampled completions, one of which is lost."""
    policy = make_tiny_policy(family, sharpness=4.0)
    prompts = policy.prompts([PROMPTS[0]] * 3 + [PROMPTS[1]] * 3, list(range(6)))
    drawn = registry.get("sampler", SAMPLERS[family])().generate(policy, prompts, seed=0)
    group_ids = torch.tensor([5, 5, 5, 2, 2, 2])
    valid = torch.tensor([True, True, True, True, False, True])
    generator = torch.Generator().manual_seed(0)
    rollouts = Rollouts(
        prompt_ids=prompts.ids,
        prompt_mask=prompts.mask,
        completion_ids=drawn.as_drawn,
        completion_mask=drawn.mask,
        rewards=torch.rand(6, generator=generator),
        group_ids=group_ids,
        valid=valid,
        trajectory=drawn.trajectory,
        totals=Rollouts.count_totals(valid, group_ids, drawn.mask),
        step_rewards=torch.rand(6, drawn.trajectory.num_steps, generator=generator),
    )
    if drawn.trajectory.keeps_states:
        rollouts = replace(rollouts, answers=draw_answers(policy, rollouts, generator))
    return policy, rollouts


def measured(kind: str, name: str) -> dict[str, Any]:
    """The declared version of what is measured, and a few of its numbers, by what they are of."""
    if kind in APPARATUS:
        return APPARATUS[kind](name)
    return {"version": registry.get(kind, name).version, **_MEASURES[kind](name)}


def _objective(name: str) -> Numbers:
    """Loss and norm of its gradient, off policy and with a reference policy of its own, in each family."""
    found = {}
    for family in registry.families_of(registry.get("objective", name)):
        policy, rollouts = real(family)
        objective = registry.build("objective", name)
        views = objective.views(rollouts, policy.process, torch.Generator().manual_seed(0))
        with torch.no_grad():
            new = policy.view_log_probs(rollouts, views)
        noise = 0.5 * torch.randn(new.shape, generator=torch.Generator().manual_seed(2)) * views.score
        inputs = LossInputs(
            rollouts=rollouts,
            views=views,
            new=new.requires_grad_(),
            old=new.detach() + noise if objective.needs_old else None,
            ref=new.detach() - noise if objective.needs_ref else None,
            advantages=objective.advantages(rollouts),
        )
        loss = objective.loss(inputs).value
        (gradient,) = torch.autograd.grad(loss, new)
        found[family] = [loss.item(), gradient.norm().item()]
    return found


def _sampler(name: str) -> Numbers:
    """What two rows hold, and the sums of their recorded log-probabilities; freely, and as text under the grammar."""
    found = {}
    for family in registry.families_of(registry.get("sampler", name)):
        policy = random_policy(family)
        prompts = prompts_of(policy, (0, 1))
        free, bound = (
            registry.build("sampler", name, {"grammar": grammar}).generate(policy, prompts, seed=3)
            for grammar in (False, True)
        )
        sums = free.trajectory.log_probs.nan_to_num().sum(dim=-1)
        found[family] = [" ".join(map(str, row)) for row in free.ids.tolist()] + sums.tolist()
        found[f"{family}, grammar"] = [policy.canvas.decode(row) for row in bound.ids]
    return found


def _reward(name: str) -> Numbers:
    """Values of outcomes from nothing to everything right."""
    right, wrong = (_field(is_correct=is_correct) for is_correct in (True, False))
    outcomes = [
        Outcome(task_id="t", fields=(wrong, wrong)),
        Outcome(task_id="t", fields=(right, wrong), num_pages=2, pages_reached=2, errors_by_rejection=(2, 1)),
        Outcome(task_id="t", fields=(right, right), is_submitted=True, num_submissions=2),
        Outcome(task_id="t", fields=(right, right), is_submitted=True, num_submissions=1),
    ]
    reward = registry.build("reward", name, REWARD_OPTIONS.get(name))
    if isinstance(reward, OutcomeReward):
        return {"outcomes": [reward(outcome) for outcome in outcomes]}
    return {"episodes": [score.value for score in scores(reward, list(map(evidence_of, ATTEMPTS)))]}


def _field(*, is_correct: bool) -> FieldResult:
    return FieldResult(name="f", wanted=("a",), server=None, dom=None, is_correct=is_correct, is_default=False)


def _policy(family: str) -> Numbers:
    """Log-probabilities of tokens on an empty canvas, and of the views of an exact likelihood or an ELBO."""
    policy, rollouts = real(family)
    canvas = policy.empty_canvas(1)
    logits = policy.logits(prompts_of(policy, (0,)), canvas, columns=torch.tensor([[0, 7]]))
    views = policy.process.elbo(rollouts, torch.Generator().manual_seed(0), num_draws=2)
    with torch.no_grad():
        scores = policy.view_log_probs(rollouts, views).sum(dim=-1)
    return {"logits": logits.log_softmax(dim=-1)[0, :, 10:14].flatten().tolist(), "views": scores.flatten().tolist()}


def _environment(name: str) -> Numbers:
    """Digest of each split's tasks; where no browser is needed, what becomes of gold plans, spoilt ones and nothing."""
    found: Numbers = {}
    for label, options in ENVIRONMENT_OPTIONS.get(name, {"tasks": {}}).items():
        session = Session(registry.build("environment", name, options))
        splits = {split: session.tasks(split) for split in session.environment.splits}
        found[label] = [f"{split} {task_digest(tasks)}" for split, tasks in splits.items()]
        has_gold = type(session.environment).gold_plan is not Environment.gold_plan
        if has_gold and not isinstance(session.environment, BrowserEnvironment):
            with session:
                found |= {f"{label}, {split}": _judged(session, tasks[:4]) for split, tasks in splits.items()}
    return found


def _judged(session: Session, tasks: Sequence[Task]) -> list[Any]:
    """Scores and successes of the gold plans, of gold plans without their last character, and of nothing."""
    pairs = [(task, text) for task in tasks for plan in [session.gold_plan(task)] for text in (plan, plan[:-1], "")]
    successes = [int(outcome.is_success) for outcome in session.run_many(pairs)]
    return [*session.score_many(pairs), *successes]


def measurable_environments() -> list[str]:
    """The environments that know their tasks before they are open."""
    return [name for name, cls in registry.items("environment") if not cls.opens_for_tasks]


def evaluation_measured(environment: str) -> dict[str, Any]:
    """The version of the evaluation, and the rows of one in a text environment: what was drawn, and its reward."""
    policy = random_policy("masked")
    with Session(registry.build("environment", environment)) as session:
        engine = RolloutEngine(
            policy=policy,
            sampler=registry.build("sampler", policy.usual_sampler),
            environment=session,
            reward=registry.build("reward", "shaped"),
        )
        rows = evaluate(engine, session.tasks("val")[:2], num_samples=2, seed=0)
    found = [" ".join(str(row[key]) for key in ("task_id", "mode", "sample", "reward", "plan")) for row in rows]
    return {"version": EVALUATION_VERSION, "rows": found}


def trainer_measured(family: str) -> dict[str, Any]:
    """The version of the trainer's arithmetic, and losses and norms of the gradient of two steps in a family."""
    with tempfile.TemporaryDirectory() as folder:
        make(family, "espo", Path(folder)).train()
        rows = read_rows(Path(folder) / "metrics.jsonl")
    return {"version": VERSION, "steps": [row[key] for row in rows for key in ("loss", "grad_norm")]}


def detectors_measured(kind: str) -> dict[str, Any]:
    """The version of the alarms that may end a run, and where the first of a synthetic run of a kind does so."""
    watch, found = OnlineDiagnosis(on_alarm="stop"), ["none"]
    if watch.replay(rows_of_detectors()[kind]) is not None and watch.stop is not None:
        found = [f"{watch.stop.detector} {watch.stop.onset} {watch.stop.raised}"]
    return {"version": DETECTORS, "stop": found}


def rows_of_detectors() -> dict[str, list[dict[str, Any]]]:
    """Runs by the names that detectors are measured on."""
    kinds = ("healthy", "off_policy", "environment", "numerical", "estimator_noise")
    return {kind: metrics_of(kind, 40) for kind in kinds} | {"gamed": simulate(HACKS["fast"], seed=3)[:90]}


_MEASURES = {
    "objective": _objective,
    "sampler": _sampler,
    "reward": _reward,
    "policy": _policy,
    "environment": _environment,
}
# What is not a registered component, by the names that it is measured on.
APPARATUS = {"trainer": trainer_measured, "evaluation": evaluation_measured, "detectors": detectors_measured}


def names(kind: str) -> list[str]:
    """What of a kind is measured."""
    if kind == "evaluation":
        return ["toy_sort"]
    if kind == "environment":
        return measurable_environments()
    if kind == "detectors":
        return list(rows_of_detectors())
    found = registry.names("policy" if kind == "trainer" else kind)
    return [name for name in found if kind != "reward" or name not in WITH_MODELS]


def frozen_objectives() -> dict[str, dict[str, Any]]:
    """The objectives that stand in the file, by name: those that pages and presets must name, too."""
    known = json.loads(FILE.read_text())
    return {label.split()[1]: numbers for label, numbers in known.items() if label.startswith("objective ")}


def measure_all() -> dict[str, dict[str, Any]]:
    """Everything that can be measured without a browser."""
    return {f"{kind} {name}": measured(kind, name) for kind in (*_MEASURES, *APPARATUS) for name in names(kind)}


def differences(known: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What of a component's numbers differs by more than processors do."""
    return [
        label
        for label in sorted((known.keys() | found.keys()) - {"version"})
        if not _is_close(known.get(label, []), found.get(label, []))
    ]


def _is_close(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        one == two or (not isinstance(two, str) and math.isclose(one, two, rel_tol=1e-3, abs_tol=1e-5))
        for one, two in zip(first, second, strict=True)
    )


def unraised(known: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """One sentence for each component whose numbers changed and whose version did not."""
    return [
        f"{name}: {', '.join(labels)} changed, and its version is still {found[name]['version']}. Raise the version."
        for name in sorted(known.keys() & found.keys())
        if (labels := differences(known[name], found[name])) and known[name]["version"] == found[name]["version"]
    ]


def main() -> int:
    """Write the file, unless a version should be raised first."""
    torch.set_num_threads(1)
    known, found = json.loads(FILE.read_text()) if FILE.is_file() else {}, measure_all()
    if problems := unraised(known, found):
        print("\n".join(problems), file=sys.stderr)
        return 1
    lines = [f"{json.dumps(name)}: {json.dumps(_rounded(found[name]))}" for name in sorted(found)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


def _rounded(numbers: dict[str, Any]) -> dict[str, Any]:
    return {key: value if key == "version" else [_round(item) for item in value] for key, value in numbers.items()}


def _round(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
