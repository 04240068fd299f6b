"""What notebooks show of rollouts and trajectories: all that is asked about, and nothing that a page would run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_rl import html, registry
from dllm_rl.records.rollout import Completion, Rollout, Turn
from dllm_rl.records.tasks import ActionResult, Fault, Observation, Outcome, RewardRecord, Task
from dllm_rl.testing.policies import prompts_of

TASK = Task(id="val/demo-0", split="val", site="demo", instruction="Name: <script>alert(1)</script>", gold=())


def rollout_of(*actions: ActionResult, plan: str = "", **outcome) -> Rollout:
    known = Outcome(task_id=TASK.id, actions=actions, **outcome)
    turn = Turn(observation=Observation(titles=(), controls=()), completion=Completion(plan=plan), outcome=known)
    reward = RewardRecord(value=0.25, submission=0.0, field_accuracy=0.5, progress=0.0)
    return Rollout(task=TASK, turns=(turn,), outcome=known, reward=reward)


def test_a_rollout_shows_its_task_its_actions_and_its_reward() -> None:
    failed = ActionResult(line=1, text='fill p1.e9 "<b>"', status="failed", note="no control p1.e9")
    shown = rollout_of(failed)._repr_html_()
    for text in ("val/demo-0", "fill p1.e9 &quot;&lt;b&gt;&quot;", "failed", "no control p1.e9", "reward 0.25"):
        assert text in shown
    assert "<script>" not in shown and "<b>" not in shown


def test_a_rollout_of_a_text_shows_the_text() -> None:
    assert "12359" in rollout_of(plan="12359")._repr_html_()


def test_a_lost_rollout_shows_no_reward() -> None:
    shown = rollout_of(fault=Fault.ENVIRONMENT, fault_reason="the browser ended")._repr_html_()
    assert "reward 0.25" not in shown and "no reward" in shown and "the browser ended" in shown


@pytest.mark.parametrize(("family", "sampler"), [("masked", "low_confidence"), ("autoregressive", "ar")])
def test_a_trajectory_shows_the_step_of_every_position(tiny_policies, family: str, sampler: str) -> None:
    policy = tiny_policies[family]
    drawn = registry.get("sampler", sampler)().generate(policy, prompts_of(policy, (0, 1)), seed=0)
    record = drawn.trajectory
    shown = record._repr_html_()
    assert shown.count("<span") == record.commit_step.numel()
    for step in record.commit_step.flatten().tolist():
        assert (f">{step}<" if step >= 0 else 'title="not drawn"') in shown
    many = replace(record, events=record.rows(record.events.end.new_zeros(20)).events)
    assert "and 4 more rows" in many._repr_html_()


def test_a_table_escapes_what_is_not_html() -> None:
    shown = html.table(("a<b",), [("<i>",), (html.Raw("<i>"),)])
    assert shown.count("<i>") == 1 and shown.count("&lt;i&gt;") == 1 and "a&lt;b" in shown
