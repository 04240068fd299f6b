"""Credit of single turns, by hand: who stood at the same page, what followed, and which turns did nothing."""

from __future__ import annotations

import pytest
import torch

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion, Rollout, Turn
from dllm_rl.records.tasks import ActionResult, Control, FieldResult, Observation, Outcome, RewardRecord, Task
from dllm_rl.training.config import TrainConfig, refuse_settings
from dllm_rl.training.credit import DISCOUNT, PENALTY, step_advantages, turn_facts

TASK = Task(id="train/t", split="train", site="s", instruction="", gold=())


def page(name: str, *errors: str) -> Observation:
    control = Control(ref="p1.e1", kind="text", name="Name")
    return Observation(titles=(name,), controls=(control,), errors=errors)


def turn(seen: Observation, text: str = 'fill p1.e1 "x"', status: str = "ok", *, right: int = 0) -> Turn:
    action = ActionResult(line=1, text=text, status=status, note="")  # type: ignore[arg-type]
    fields = tuple(
        FieldResult(name=str(at), wanted=("x",), server=None, dom=None, is_correct=at < right, is_default=False)
        for at in range(3)
    )
    outcome = Outcome(task_id=TASK.id, actions=(action,), fields=fields)
    return Turn(observation=seen, completion=Completion(plan=text), outcome=outcome)


def episode(*turns: Turn, reward: float = 0.0) -> Rollout:
    record = RewardRecord(value=reward, submission=0.0, field_accuracy=0.0, progress=0.0)
    return Rollout(task=TASK, turns=turns, outcome=turns[-1].outcome, reward=record)


def test_turns_at_the_same_page_are_compared_by_what_followed() -> None:
    start, other = page("Start"), page("Other")
    episodes = [episode(turn(start), reward=1.0), episode(turn(start), turn(other), reward=1.0), episode(turn(start))]
    facts = turn_facts(episodes)
    assert facts.anchors.tolist() == [0, 0, 1, 0] and facts.to_go.tolist() == [0, 1, 0, 0]
    rewards = torch.tensor([1.0, 1.0, 1.0, 0.0])
    found = step_advantages("gigpo", facts, rewards, torch.zeros(4, dtype=torch.long))
    mean = (1 + DISCOUNT + 0) / 3
    assert found.tolist() == pytest.approx([1 - mean, DISCOUNT - mean, 0.0, -mean])


def test_groups_do_not_share_their_pages() -> None:
    start = page("Start")
    facts = turn_facts([episode(turn(start), reward=1.0), episode(turn(start))])
    assert step_advantages("gigpo", facts, torch.tensor([1.0, 0.0]), torch.tensor([0, 1])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("first", "following", "wanted"),
    [
        (turn(page("A"), status="failed"), page("B"), (1, 1)),
        (turn(page("A"), "click p1.e1"), page("B"), (0, 0)),
        (turn(page("A")), page("A", "new"), (0, 0)),
        (turn(page("A")), page("A"), (0, 1)),
        (turn(page("A"), "wait"), page("A"), (1, 1)),
        (turn(page("A"), "scroll down"), page("A", "new"), (1, 1)),
        (turn(page("A", "one"), "wait"), page("A"), (0, 0)),
        (turn(page("A"), "wait", right=1), page("A", "new"), (0, 0)),
        (turn(page("A"), 'note "p1.e1"'), page("A"), (1, 1)),
    ],
)
def test_the_rules_charge_what_did_nothing(first, following, wanted) -> None:
    facts = turn_facts([episode(first, turn(following))])
    assert tuple(facts.is_idle[0].tolist()) == wanted


def test_a_charge_is_small_and_its_mean_over_the_group_is_nothing() -> None:
    facts = turn_facts([episode(turn(page("A"), "wait"), turn(page("A"))), episode(turn(page("A")))])
    found = step_advantages("rule_tree", facts, torch.zeros(3), torch.zeros(3, dtype=torch.long))
    assert found.tolist() == pytest.approx([-PENALTY * 2 / 3, PENALTY / 3, PENALTY / 3])
    assert step_advantages("none", facts, torch.ones(3), torch.zeros(3, dtype=torch.long)).tolist() == [0.0] * 3


def test_credit_of_turns_is_refused_beside_rewards_of_denoising_steps() -> None:
    config = TrainConfig(step_credit="gigpo")  # type: ignore[call-arg]
    refuse_settings(config, registry.build("objective", "grpo"))
    with pytest.raises(ConfigError, match="a denoising step"):
        refuse_settings(config, registry.build("objective", "mdpo"))
