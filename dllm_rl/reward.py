"""The contract of rewards: from what can be seen of episodes to what is paid for them.

A reward reads evidence (pages, actions, feedback), never the policy's words. One that declares `needs_truth` also gets
what the server received; from the others it is withheld. Success is recorded whatever is paid.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    # The records of rollouts are rewarded, and import this module.
    from dllm_rl.policies.base import BasePolicy
    from dllm_rl.records.evidence import Evidence
    from dllm_rl.records.tasks import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a reward says of one episode.

    Attributes:
        value: What is paid, in [0, 1].
        claim: What the reward takes for success without having read the truth, in [0, 1]; None for one that reads it.
            The distance of claims from the truth is what the alarms for gaming watch.
        components: Parts of the value, by name.
        fault: Why there is no reward, such as a judge that did not answer. Such an episode counts as lost, never as 0.
    """

    value: float = 0.0
    claim: float | None = None
    components: Mapping[str, float] = field(default_factory=dict)
    fault: str = ""


class Reward(ABC):
    """Base of rewards.

    Attributes:
        version: Raise it whenever an episode would be paid otherwise: finished results are keyed by it.
        needs_truth: Whether it reads what the server received.
        needs_return: Whether it means something only where the environment pays by itself (`Environment.has_return`).
    """

    __slots__ = ()

    version: ClassVar[int]
    needs_truth: ClassVar[bool]
    needs_return: ClassVar[bool] = False

    @abstractmethod
    def score(self, episodes: Sequence[Evidence]) -> Sequence[Score]:
        """Score episodes, one score each, in order. The score of one does not depend on the others.

        Call `scores`, which withholds the truth where it is not needed.
        """

    def at(self, step: int) -> Reward:
        """The reward as it pays at a training step. Evaluation takes the reward as it was built."""
        return self

    def of_policy(self, policy: BasePolicy) -> Reward:
        """The reward as it pays what this policy does now. Most rewards do not depend on the policy.

        The engine asks before each batch of episodes, since the policy's weights change between them. Raises
        ConfigError where a reward cannot be taken of this policy.
        """
        return self

    def ingredients(self) -> list[Any]:
        """What else decides its numbers, as plain data: rewards that it is made of, digests of files that it reads."""
        return []


class OutcomeReward(Reward):
    """Base of rewards that are functions of the outcome, so of the truth."""

    __slots__ = ()

    needs_truth: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, outcome: Outcome) -> float:
        """What an outcome is worth, in [0, 1]. Its parts are recorded beside it (`dllm_rl.records.truth`)."""

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Score the outcomes."""
        outcomes = [episode.truth.outcome for episode in episodes if episode.truth is not None]
        return [Score(value=self(outcome)) for outcome in outcomes]


@dataclass(frozen=True, slots=True)
class FromFunction(OutcomeReward):
    """A reward from a plain function of the outcome, for scripts and tests; presets name registered rewards."""

    version: ClassVar[int] = 1

    function: Callable[[Outcome], float]

    def __call__(self, outcome: Outcome) -> float:
        """Return what the function returns."""
        return self.function(outcome)


def scores(reward: Reward, episodes: Sequence[Evidence]) -> list[Score]:
    """Score episodes, and give the truth only to a reward that needs it."""
    given = episodes if reward.needs_truth else [episode.without_truth() for episode in episodes]
    found = list(reward.score(given))
    if len(found) != len(episodes):
        raise ValueError(
            f"{type(reward).__name__} gave {len(found)} scores for {len(episodes)} episodes; give one each"
        )
    return found
