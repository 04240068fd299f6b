"""The built-in rewards and their components. In [0, 1]; the oracle plan earns exactly 1, the empty plan exactly 0.

S submission: the server accepted. F field accuracy over the gold fields that the untouched page did not hold already; a
default that the plan has spoilt counts against it, and answers that nobody asked for count as one more wrong field.
P progress: share of the pages left behind (all when accepted).
S and P count only once at least one gold field has been changed to its right value, so that submit-only is 0.
The shaped weights are those of the original study of form filling, with P in place of its "executed share".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Outcome, RewardRecord
from dllm_rl.registry import register


def record_of(outcome: Outcome, value: float) -> RewardRecord:
    """Return the record of an outcome that is worth `value`."""
    return RewardRecord(
        value=value,
        submission=submission_of(outcome),
        field_accuracy=accuracy_of(outcome),
        progress=progress_of(outcome),
    )


def accuracy_of(outcome: Outcome) -> float:
    """F: right values among the gold fields that had to be changed, and those that the plan spoilt."""
    counted = [result for result in outcome.fields if not result.is_default or not result.is_correct]
    num_counted = len(counted) + (not outcome.is_clean)
    return sum(result.is_correct for result in counted) / num_counted if counted else 0.0


def submission_of(outcome: Outcome) -> float:
    """S: 1 if the server accepted and something wanted was changed, else 0."""
    return float(outcome.is_submitted and outcome.has_changed_something)


def progress_of(outcome: Outcome) -> float:
    """P: share of the pages left behind; 0 until something wanted was changed."""
    if not outcome.has_changed_something:
        return 0.0
    if outcome.is_submitted:
        return 1.0
    return max(0, outcome.pages_reached - 1) / max(1, outcome.num_pages)


def num_repeats(outcome: Outcome) -> int:
    """Submissions beyond the first: those the server saw, and those that the plan still asked for afterwards."""
    still_asked = sum(item.status == "skipped" and item.text.startswith("submit ") for item in outcome.actions)
    return max(0, outcome.num_submissions - 1) + still_asked


@register("reward", "outcome")
@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """0 or 1: accepted, every gold field equal, every other field at its default, and something was changed."""

    version: ClassVar[int] = 1

    def __call__(self, outcome: Outcome) -> RewardRecord:
        """Return 1 for a success."""
        return record_of(outcome, float(outcome.is_success))


@register("reward", "shaped")
@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
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

    def __call__(self, outcome: Outcome) -> RewardRecord:
        """Return submission S + field_accuracy F + progress P, less the penalty; at least 0."""
        parts = (submission_of(outcome), accuracy_of(outcome), progress_of(outcome))
        # Exactly 1 for the oracle, which the rounding of weights such as .4 + .4 + .2 does not promise.
        whole = 1.0
        if parts != (1.0, 1.0, 1.0):
            whole = self.submission * parts[0] + self.field_accuracy * parts[1] + self.progress * parts[2]
        return record_of(outcome, max(0.0, whole - self.repeat_penalty * num_repeats(outcome)))


@register("reward", "tree")
@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Rule-based progress tree, for credit where nothing was accepted: progress, correctness, and corrected errors.

    Three branches of equal weight under the gate of S and P: pages left behind; F; the last answer of the server
    (1 for an acceptance, 0.5 for a refusal with fewer errors than the one before, else 0). An accepted form that is not
    a success earns at most 0.9.

    Attributes:
        repeat_penalty: Cost of each submission beyond the first.
    """

    version: ClassVar[int] = 1

    repeat_penalty: float = 0.1

    def __call__(self, outcome: Outcome) -> RewardRecord:
        """Return the mean of the branches, less the penalty; at least 0."""
        if not outcome.has_changed_something:
            return record_of(outcome, 0.0)
        branches = (progress_of(outcome), accuracy_of(outcome), _last_word(outcome))
        whole = 1.0 if branches == (1.0, 1.0, 1.0) else 0.9 * sum(branches) / 3
        return record_of(outcome, max(0.0, whole - self.repeat_penalty * num_repeats(outcome)))


def _last_word(outcome: Outcome) -> float:
    if outcome.is_submitted:
        return 1.0
    errors = outcome.errors_by_rejection
    return 0.5 if len(errors) > 1 and errors[-1] < errors[-2] else 0.0
