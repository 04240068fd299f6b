"""The built-in rewards of the truth, functions of the outcome: in [0, 1], the oracle plan at 1, the empty one at 0.

They are made of S, F and P of `dllm_rl.records.truth`. The shaped weights are those of the original study of form
filling, with P in place of its "executed share".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Outcome
from dllm_rl.records.truth import accuracy_of, progress_of, submission_of
from dllm_rl.registry import register
from dllm_rl.reward import OutcomeReward


def num_repeats(outcome: Outcome) -> int:
    """Submissions beyond the first: those the server saw, and those that the plan still asked for afterwards."""
    still_asked = sum(item.status == "skipped" and item.text.startswith("submit ") for item in outcome.actions)
    return max(0, outcome.num_submissions - 1) + still_asked


@register("reward", "outcome")
@dataclass(frozen=True, slots=True, kw_only=True)
class Success(OutcomeReward):
    """0 or 1: accepted, every gold field equal, every other field at its default, and something was changed."""

    version: ClassVar[int] = 1

    def __call__(self, outcome: Outcome) -> float:
        """Return 1 for a success."""
        return float(outcome.is_success)


@register("reward", "shaped")
@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped(OutcomeReward):
    """Weighted sum of S, F and P, less a penalty for every repeated submission.

    Attributes:
        submission: Weight of S. The three weights are shares that sum to 1.
        field_accuracy: Weight of F.
        progress: Weight of P.
        repeat_penalty: Cost of each submission beyond the first.
    """

    version: ClassVar[int] = 1

    submission: float = 0.4
    field_accuracy: float = 0.4
    progress: float = 0.2
    repeat_penalty: float = 0.1

    def __post_init__(self) -> None:
        weights = (self.submission, self.field_accuracy, self.progress)
        if abs(sum(weights) - 1) > 1e-9 or min(weights) < 0:
            given = ", ".join(f"{each:g}" for each in weights)
            raise ConfigError(f"reward weights {given}; expected shares from 0 to 1 that sum to 1.")

    def __call__(self, outcome: Outcome) -> float:
        """Return submission S + field_accuracy F + progress P, less the penalty; at least 0."""
        parts = (submission_of(outcome), accuracy_of(outcome), progress_of(outcome))
        # Exactly 1 for the oracle, which the rounding of weights such as .4 + .4 + .2 does not promise.
        whole = 1.0
        if parts != (1.0, 1.0, 1.0):
            whole = self.submission * parts[0] + self.field_accuracy * parts[1] + self.progress * parts[2]
        return max(0.0, whole - self.repeat_penalty * num_repeats(outcome))


@register("reward", "tree")
@dataclass(frozen=True, slots=True, kw_only=True)
class Tree(OutcomeReward):
    """Rule-based progress tree, for credit where nothing was accepted: progress, correctness, and corrected errors.

    Three branches of equal weight under the gate of S and P: pages left behind; F; the last answer of the server
    (1 for an acceptance, 0.5 for a refusal with fewer errors than the one before, else 0). An accepted form that is not
    a success earns at most 0.9.

    Attributes:
        repeat_penalty: Cost of each submission beyond the first.
    """

    version: ClassVar[int] = 1

    repeat_penalty: float = 0.1

    def __call__(self, outcome: Outcome) -> float:
        """Return the mean of the branches, less the penalty; at least 0."""
        if not outcome.has_changed_something:
            return 0.0
        branches = (progress_of(outcome), accuracy_of(outcome), _last_word(outcome))
        whole = 1.0 if branches == (1.0, 1.0, 1.0) else 0.9 * sum(branches) / 3
        return max(0.0, whole - self.repeat_penalty * num_repeats(outcome))


def _last_word(outcome: Outcome) -> float:
    if outcome.is_submitted:
        return 1.0
    errors = outcome.errors_by_rejection
    return 0.5 if len(errors) > 1 and errors[-1] < errors[-2] else 0.0
