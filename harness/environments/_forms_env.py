"""The forms for Gymnasium: a task and a page as text, a whole plan as the action, one step an episode.

`gymnasium.make("harness.gymnasium:dllm_rl/Forms-v0")`.

The reward is the server's word (`harness.rewards`), the observation after the step is the feedback on every line. A
rollout that the environment lost is truncated instead of terminated, with reward 0 and `info["is_valid"]` False.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium.spaces import Text

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.records.plan import MAX_CHARACTERS
from dllm_rl.records.rollout import Completion, one_turn, rewarded
from dllm_rl.records.tasks import Observation, Task, render_prompt
from dllm_rl.session import Session

# Latin letters with accents, punctuation and the line end: all that the built-in sites write.
CHARACTERS = "\n" + "".join(
    map(chr, (*range(32, 127), *range(160, 592), *range(0x1E00, 0x1F00), *range(0x2010, 0x2030)))
)
MAX_OBSERVATION = 32_000


class FormsEnv(gymnasium.Env[str, str]):
    """One task an episode.

    Args:
        split: Split of the tasks.
        reward: Name of the reward.
        **settings: Options of the environment; see `FormSettings`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own convention

    def __init__(self, *, split: str = "train", reward: str = "shaped", **settings: Any) -> None:
        self.observation_space = Text(max_length=MAX_OBSERVATION, min_length=0, charset=CHARACTERS)
        self.action_space = Text(max_length=MAX_CHARACTERS, min_length=0, charset=CHARACTERS)
        self._reward = registry.build("reward", reward)
        self._session = Session(registry.build("environment", "forms", settings))
        self._tasks = self._session.tasks(split)
        if not self._tasks:
            raise ConfigError(f"the split '{split}' has no tasks: counts gives it none. Give at least 1.")
        self._task: Task = self._tasks[0]
        self._page: Observation = Observation(titles=(), controls=())

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Draw a task by seed, or take `options["task"]`, a number in the split."""
        super().reset(seed=seed)
        for name in options or {}:
            if name != "task":
                raise unknown_name("option of reset", name, ("task",))
        number = (options or {}).get("task")
        if number is None:
            number = int(self.np_random.integers(len(self._tasks)))
        elif not isinstance(number, int) or not 0 <= number < len(self._tasks):
            raise ConfigError(f"task is {number!r}; expected a number from 0 to {len(self._tasks) - 1}.")
        self._task = self._tasks[number]
        (self._page,) = self._session.observe_many([self._task])
        return render_prompt(self._task, self._page), {"task_id": self._task.id}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Run the plan in Chromium. info: `outcome` (the whole record), `is_success`, `is_valid`."""
        if not isinstance(action, str):
            raise ConfigError(f"the action is {type(action).__name__}; expected a plan as text.")
        (outcome,) = self._session.run_many([(self._task, action)])
        (rollout,) = rewarded(self._reward, [one_turn(self._task, self._page, Completion(plan=action), outcome)])
        outcome = rollout.outcome
        feedback = "\n".join(item.note for item in outcome.actions)
        readable = "".join(letter if letter in CHARACTERS else "?" for letter in feedback)[:MAX_OBSERVATION]
        # Without timings, equal seeds and actions give equal infos.
        info = {"outcome": replace(outcome, seconds={}), "is_success": outcome.is_success, "is_valid": outcome.is_valid}
        return readable, rollout.reward.value, outcome.is_valid, not outcome.is_valid, info

    def close(self) -> None:
        """End browser and server."""
        self._session.close()
