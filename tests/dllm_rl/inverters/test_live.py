"""The policy as its own inverter, live and frozen: both read alike until it learns; then only the live one drifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.inverters import InversionExample, PolicyInverter, train_inverter
from dllm_rl.records.evidence import Evidence, as_planned
from dllm_rl.reward import Reward, Score, scores
from dllm_rl.testing.reward import PAGE
from dllm_rl.training.trainer import Trainer
from dllm_rl.training.warmstart import WarmStartConfig
from tests.dllm_rl.training.test_trainer import make
from tests.tiny_policies import make_tiny_policy

CONFIG = WarmStartConfig(passes=16 * 140, batch_size=16, learning_rate=5e-3, warmup_steps=5, is_mixed_precision=False)
LIVE = {"inverter": "live", "similarity": "pmi", "max_echo": 1.0}


def pairs(names: tuple[str, ...], asked: tuple[str, ...]) -> list[InversionExample]:
    found = [
        InversionExample(state=f"Name: {name}", instruction=f"Name {other}")
        for name, other in zip(names, asked, strict=True)
    ]
    return found * 8


def paid(reward: Reward, policy: Any) -> tuple[float, float]:
    """What a right plan earns, and a wrong one."""
    episodes = [as_planned("Name Ann", PAGE, f'fill p1.e1 "{name}"') for name in ("Ann", "Bob")]
    right, wrong = scores(reward.of_policy(policy), episodes)
    return right.value, wrong.value


def test_a_live_inverter_drifts_into_a_code_that_a_frozen_one_does_not_share(tmp_path: Path) -> None:
    """The negative control: weights that agree with themselves pay for the wrong name, and call it a success."""
    policy, folder = make_tiny_policy("autoregressive", sharpness=1.0), tmp_path / "own"
    train_inverter(policy, pairs(("Ann", "Bob"), ("Ann", "Bob")), CONFIG, folder)
    frozen = registry.build(
        "reward", "flip", {**LIVE, "inverter": "policy", "inverter_options": {"checkpoint": str(folder)}}
    )
    live = registry.build("reward", "flip", LIVE)
    before = paid(live, policy)
    assert before == pytest.approx(paid(frozen, policy), abs=1e-4) and before[0] > 0.5 > before[1]
    train_inverter(policy, pairs(("Ann", "Bob"), ("Bob", "Ann")), CONFIG, tmp_path / "later")
    after = paid(live, policy)
    assert after[1] > 0.5 > after[0]
    assert paid(frozen, policy) == pytest.approx(before, abs=1e-4)


def test_what_was_inferred_of_an_untouched_page_is_inferred_anew(tmp_path: Path) -> None:
    """It is subtracted from what is paid, and changes with the weights."""
    reward = registry.build("reward", "flip", {**LIVE, "similarity": "words"})
    written = []
    for name in ("Ann", "Bob"):
        policy = make_tiny_policy("autoregressive", sharpness=1.0)
        train_inverter(policy, pairs((name,), (name,)), CONFIG, tmp_path / name)
        bound: Any = reward.of_policy(policy)
        written.append(bound._from_nothing)
        assert [written[-1]] == PolicyInverter(checkpoint=str(tmp_path / name)).write([""])
    assert written[0] != written[1]


def test_parts_of_a_combined_reward_learn_whose_plans_they_pay() -> None:
    options = {"base": {"reward": "flip", "options": LIVE}, "gates": [{"reward": "well_formed"}]}
    reward = registry.build("reward", "combined", options)
    episode = as_planned("Name Ann", PAGE, 'fill p1.e1 "Ann"')
    with pytest.raises(ConfigError, match="there is none here"):
        scores(reward, [episode])
    (score,) = scores(reward.of_policy(make_tiny_policy("autoregressive")), [episode])
    assert not score.fault and score.components["gates"] == 1.0


@dataclass(frozen=True, kw_only=True)
class Watching(Reward):
    """Remembers whose plans it was to pay; pays only once it knows."""

    version: ClassVar[int] = 1
    needs_truth: ClassVar[bool] = False

    seen: list[Any]
    pays: float = 0.0

    def of_policy(self, policy: Any) -> Reward:
        """The same, paying."""
        self.seen.append(policy)
        return replace(self, pays=1.0)

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Pay."""
        return [Score(value=self.pays) for _ in episodes]


def test_the_engine_says_before_each_batch_whose_plans_are_paid(tmp_path: Path) -> None:
    trainer, seen = make("autoregressive", "grpo", tmp_path), []
    engine = replace(trainer.engine, reward=Watching(seen=seen))
    for _ in range(2):
        batch = engine.run(trainer.tasks[:1], range(1), seed=0)
        assert [rollout.reward.value for rollout in batch.rollouts] == [1.0]
    assert seen == [trainer.policy] * 2


def test_training_refuses_a_reward_that_its_policy_cannot_pay(tmp_path: Path) -> None:
    trainer = make("masked", "grpo", tmp_path)
    engine = replace(trainer.engine, reward=registry.build("reward", "flip", LIVE))
    with pytest.raises(ConfigError, match="inverter 'live' does not know"):
        Trainer(
            engine=engine, objective=trainer.objective, tasks=trainer.tasks, config=trainer.config, run_dir=tmp_path
        )


def test_likelihoods_are_refused_once_the_policy_is_known() -> None:
    reward = registry.build("reward", "flip", LIVE)
    with pytest.raises(ConfigError, match="inverter 'live' does not know"):
        reward.of_policy(make_tiny_policy("masked"))


@pytest.mark.parametrize("inverter", ["live", "plain"])
def test_word_weights_are_those_of_a_trained_inverter(inverter: str) -> None:
    with pytest.raises(ConfigError, match="word weights of a trained inverter"):
        registry.build("reward", "flip", {"inverter": inverter, "similarity": "idf"})


@pytest.mark.parametrize("options", [{"inverter": "plain"}, {"inverter": "plain", "similarity": "fields"}])
def test_other_inverters_are_the_same_for_every_policy(options: dict[str, Any]) -> None:
    reward = registry.build("reward", "flip", options)
    assert reward.of_policy(make_tiny_policy("masked")) is reward
