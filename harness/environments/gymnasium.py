"""Gymnasium in both directions: its text environments as our tasks, and our forms in its registry.

`GymnasiumEnvironment` runs whatever `gymnasium.make` makes, provided that observations and actions are texts and that
an episode is one action. `register_forms` lets Gymnasium know `dllm_rl/Forms-v0`.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from dllm_rl.environment import Environment
from dllm_rl.errors import ConfigError
from dllm_rl.options import fixed
from dllm_rl.records.tasks import Fault, FieldResult, GoldField, Observation, Outcome, Task
from dllm_rl.registry import register
from harness.browser import NUM_ATTEMPTS
from harness.environments.base import check_counts

FORMS_ID = "dllm_rl/Forms-v0"
DEFAULT_COUNTS = {"train": 360, "val": 60, "test": 120}
SEEDS_A_SPLIT = 1_000_000
REWARD = GoldField(name="reward", kind="number", wanted=("1",), label="reward of the environment's own")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GymnasiumSettings:
    """Settings of a Gymnasium environment.

    Attributes:
        id: As `gymnasium.make` takes it; `module:Id-v0` imports a module first, which registers the id.
        options: Keyword arguments of `gymnasium.make`.
        counts: Number of tasks by split. A task is a seed of `reset`; each split has seeds of its own.
        success_reward: An episode with at least this reward is a success.
        concurrency: Episodes at a time, each in an instance of its own and a thread of its own.
    """

    id: str
    options: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    success_reward: float = 1.0
    concurrency: int = fixed(default=1)

    def __post_init__(self) -> None:
        check_counts(self.counts, DEFAULT_COUNTS)
        if self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}; expected at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Episode:
    """An episode of one action. `is_lost`: the environment truncated it, which says nothing about the plan."""

    observation: str
    reward: float
    is_lost: bool


@register("environment", "gymnasium")
class GymnasiumEnvironment(Environment):
    """Episodes of one action. What is observed after `reset` is the whole prompt; no gold plan is known."""

    splits: ClassVar[tuple[str, ...]] = tuple(DEFAULT_COUNTS)

    def __init__(self, settings: GymnasiumSettings) -> None:
        if importlib.util.find_spec("gymnasium") is None:
            raise ConfigError("the package 'gymnasium' is not installed. Install it: pip install 'dllm-rl[gymnasium]'")
        self.settings = settings
        self._idle: list[Any] = []
        self._seen: dict[str, Observation] = {}

    async def close(self) -> None:
        """Close every instance that was made."""
        while self._idle:
            await asyncio.to_thread(self._idle.pop().close)

    @property
    def concurrency(self) -> int:
        """Episodes at a time."""
        return self.settings.concurrency

    def tasks(self, split: str) -> tuple[Task, ...]:
        """One task a seed."""
        counts = {**DEFAULT_COUNTS, **self.settings.counts}
        first = list(DEFAULT_COUNTS).index(split) * SEEDS_A_SPLIT
        return tuple(
            Task(id=f"{split}/{self.settings.id}-{seed}", split=split, site=str(seed), instruction="", gold=(REWARD,))
            for seed in range(first, first + counts[split])
        )

    async def observe(self, task: Task) -> Observation:
        """The first observation of the task's seed."""
        if task.site not in self._seen:
            text = await self._first_text(int(task.site))
            self._seen[task.site] = Observation(titles=(), controls=(), instruction=text)
        return self._seen[task.site]

    async def _first_text(self, seed: int) -> str:
        for is_last in (*(False,) * (NUM_ATTEMPTS - 1), True):
            try:
                return await self._with_instance(lambda instance: _reset(instance, seed))
            except ConfigError:
                raise
            except Exception as error:
                if is_last:
                    raise ConfigError(
                        f"{self.settings.id} cannot be reset with the seed {seed}: {type(error).__name__}: {error}. "
                        "Expected an observation; mend the environment."
                    ) from error
        raise AssertionError("unreachable")

    async def run(self, task: Task, plan: str, *, isolation: str | None = None, executor: str | None = None) -> Outcome:
        """Take the plan as the one action. A plan outside of the action space fails; an exception is a fault."""
        page, why = await self.observe(task), ""
        for number in range(1, NUM_ATTEMPTS + 1):
            try:
                episode = await self._with_instance(lambda instance: _episode(instance, int(task.site), plan))
            except ConfigError:
                raise
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                continue
            if episode is None:
                outcome = _outcome(task, None, is_success=False)
                return replace(outcome, fault=Fault.AGENT, fault_reason="not in the action space", is_parsed=False)
            if episode.observation != page.instruction:
                raise ConfigError(
                    f"{self.settings.id}: two resets with the seed {task.site} gave different observations; expected "
                    "an environment that its seed determines. Draw from `self.np_random` only."
                )
            if not episode.is_lost:
                is_success = episode.reward >= self.settings.success_reward
                return replace(_outcome(task, episode.reward, is_success=is_success), num_attempts=number)
            why = "the environment truncated the episode"
        lost = _outcome(task, None, is_success=False)
        return replace(lost, fault=Fault.ENVIRONMENT, fault_reason=why, num_attempts=NUM_ATTEMPTS)

    async def _with_instance(self, work: Callable[[Any], T]) -> T:
        """Work with an instance in a thread; one in which something failed is not used again."""
        import gymnasium

        instance = self._idle.pop() if self._idle else None
        if instance is None:
            try:
                instance = await asyncio.to_thread(gymnasium.make, self.settings.id, **self.settings.options)
            except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
                raise ConfigError(f"gymnasium.make cannot make '{self.settings.id}': {error}") from error
        try:
            result = await asyncio.to_thread(work, instance)
        except BaseException:
            await asyncio.to_thread(instance.close)
            raise
        self._idle.append(instance)
        return result


def _reset(instance: Any, seed: int) -> str:
    observation, _ = instance.reset(seed=seed)
    if not isinstance(observation, str):
        raise ConfigError(
            f"{instance.spec.id} observes {type(observation).__name__}; expected text. Wrap it so that it returns str."
        )
    return observation


def _episode(instance: Any, seed: int, plan: str) -> _Episode | None:
    """Run an episode; None for a plan outside of the action space."""
    observation = _reset(instance, seed)
    if not instance.action_space.contains(plan):
        return None
    _, reward, is_terminated, is_truncated, _ = instance.step(plan)
    if not (is_terminated or is_truncated):
        raise ConfigError(f"{instance.spec.id} waits for a second action; expected episodes of one action. Wrap it.")
    return _Episode(observation=observation, reward=float(reward), is_lost=not is_terminated)


def _outcome(task: Task, reward: float | None, *, is_success: bool) -> Outcome:
    given = None if reward is None else (f"{reward:g}",)
    field_result = FieldResult(
        name=REWARD.name, wanted=REWARD.wanted, server=given, dom=None, is_correct=is_success, is_default=False
    )
    is_ended = reward is not None
    return Outcome(
        task_id=task.id, is_submitted=is_ended, fields=(field_result,), pages_reached=1, num_submissions=int(is_ended)
    )


def register_forms() -> None:
    """Let Gymnasium know our environments; may be called again. `harness.gymnasium` does it when it is imported."""
    import gymnasium

    if FORMS_ID not in gymnasium.registry:
        gymnasium.register(id=FORMS_ID, entry_point="harness.environments._forms_env:FormsEnv")
