"""The horizon curriculum: stages cut episodes short in training, and settings that would not are refused."""

from __future__ import annotations

import pytest

from dllm_rl.episodes import play
from dllm_rl.errors import ConfigError
from dllm_rl.files import read_rows
from dllm_rl.records.rollout import Completion
from dllm_rl.records.tasks import Ending, Fault
from dllm_rl.reward import FromFunction
from dllm_rl.session import Session
from dllm_rl.training.config import TrainConfig
from dllm_rl.training.horizon import HorizonStage, max_turns_at, refuse_endless_horizon, refuse_horizon
from tests.dllm_rl.training.test_turns import Walks, by_length, trainer_of

STAGES = (HorizonStage(steps=1, max_turns=1), HorizonStage(steps=2, max_turns=2))


@pytest.fixture(scope="module")
def session():
    with Session(Walks()) as opened:
        yield opened


def test_a_stage_holds_for_its_steps_and_then_the_environments_limit() -> None:
    assert [max_turns_at(STAGES, step) for step in range(5)] == [1, 2, 2, None, None]
    assert max_turns_at(None, 0) is None


def test_episodes_of_a_stage_take_no_more_turns_than_it_allows(session, tmp_path) -> None:
    stages = [{"steps": 1, "max_turns": 1}, {"steps": 1, "max_turns": 2}]
    trainer = trainer_of(session, "grpo", tmp_path, steps=3, inner_steps=1, group_size=8, horizon=stages)
    trainer.train()
    rollouts = read_rows(tmp_path / "rollouts.jsonl")
    lengths = [{row["num_turns"] for row in rollouts if row["step"] == step} for step in range(3)]
    assert lengths[0] == {1} and max(lengths[1]) == 2 and max(lengths[2]) == 3
    assert {row["ending"] for row in rollouts if row["step"] == 0} == {"finished", "turns"}
    assert [row.get("turns/limit") for row in read_rows(tmp_path / "metrics.jsonl")] == [1.0, 2.0, None]


def test_an_episode_that_is_cut_is_nobodys_fault_and_one_that_ended_by_itself_stays(session) -> None:
    tasks = session.tasks("train")[:2]

    def write(situations):
        # One letter e more makes a walk of two turns; the other ends at once.
        return [Completion(plan="e" if item.row else "nothing at all") for item in situations]

    cut, ended = play(session, FromFunction(by_length), tasks, write, max_turns=1)[::-1]
    assert cut.outcome.ending is Ending.TURNS and cut.outcome.fault is Fault.NONE and len(cut.turns) == 1
    assert ended.outcome.ending is Ending.FINISHED and ended.outcome.is_submitted


@pytest.mark.parametrize(
    ("stages", "num_steps", "message"),
    [
        ([(1, 4), (1, 4)], 8, "more in each stage"),
        ([(1, 4), (1, 2)], 8, "more in each stage"),
        ([(4, 2), (5, 4)], 8, "take 9 steps, and training has 8"),
    ],
)
def test_stages_without_effect_are_refused(stages, num_steps, message) -> None:
    with pytest.raises(ConfigError, match=message):
        refuse_horizon([HorizonStage(steps=steps, max_turns=turns) for steps, turns in stages], num_steps)


def test_a_stage_that_the_environment_ends_first_is_refused() -> None:
    with pytest.raises(ConfigError, match="ends episodes after 2"):
        refuse_endless_horizon(STAGES, 2)
    refuse_endless_horizon(STAGES, 3)
    refuse_endless_horizon(STAGES, None)


def test_stages_are_read_as_a_cell_writes_them_down() -> None:
    config = TrainConfig(horizon=STAGES)  # type: ignore[call-arg]
    assert TrainConfig(**config.model_dump(mode="json")) == config


def test_a_horizon_is_refused_for_whole_plans(tmp_path) -> None:
    from tests.dllm_rl.training.test_trainer import make

    with pytest.raises(ConfigError, match=r"horizon=.*whole plans"):
        make("masked", "grpo", tmp_path, steps=2, horizon=STAGES)
