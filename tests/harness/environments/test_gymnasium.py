"""The Gymnasium face keeps Gymnasium's contract, and its reward is the server's word."""

from __future__ import annotations

from pathlib import Path

import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from dllm_rl.errors import ConfigError  # noqa: E402
from dllm_rl.session import Session  # noqa: E402
from harness.environments import FormEnvironment  # noqa: E402
from harness.environments._forms_env import CHARACTERS, FormsEnv  # noqa: E402


@pytest.mark.browser
def test_the_environment_passes_the_checker_and_pays_the_oracle(tmp_path: Path) -> None:
    env = gymnasium.make(
        "harness.gymnasium:dllm_rl/Forms-v0", counts={"train": 2}, kinds=("newsletter",), cache_dir=tmp_path
    )
    try:
        check_env(env.unwrapped, skip_render_check=True)
        observation, info = env.reset(seed=3)
        assert observation.startswith("task: ")
        assert (observation, info) == env.reset(seed=3)
        session: Session[FormEnvironment] = env.unwrapped._session
        task = next(task for task in session.tasks("train") if task.id == info["task_id"])
        feedback, reward, terminated, truncated, info = env.step(session.gold_plan(task))
        assert (reward, terminated, truncated, info["is_success"]) == (1.0, True, False, True)
        assert feedback.endswith("submitted")
        env.reset(options={"task": 0})
        assert env.step("")[1] == 0.0
        for options, says in (({"task": 9}, "from 0 to 1"), ({"tsk": 1}, "Did you mean 'task'")):
            with pytest.raises(ConfigError, match=says):
                env.reset(options=options)
    finally:
        env.close()


def test_all_pages_of_the_built_in_world_can_be_observed() -> None:
    from dllm_rl.records.tasks import render_prompt
    from harness.sites import expected_page, make_site, make_tasks

    for size in ("small", "full"):
        for task in make_tasks("test_layout", count=32, size=size, dials=(0, 1, 2)):  # type: ignore[arg-type]
            assert set(render_prompt(task, expected_page(make_site(task.site)))) <= set(CHARACTERS)


def test_a_split_without_tasks_is_named() -> None:
    with pytest.raises(ConfigError, match="the split 'train' has no tasks"):
        FormsEnv(counts={"train": 0})


def test_an_unknown_reward_is_named() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'shaped'"):
        FormsEnv(reward="shape")
