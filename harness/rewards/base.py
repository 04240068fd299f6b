"""The components that rewards are made of, and the record of a reward.

S submission: the server accepted. F field accuracy over the gold fields that the untouched page did not hold already; a
default that the plan has spoilt counts against it, and answers that nobody asked for count as one field more that is
wrong. P progress: share of the pages left behind (all when accepted).
S and P count only once at least one gold field has been changed to its right value, so that submit-only is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from dllm_rl.tasks import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardRecord:
    """Components of a reward. is_near_miss: all fields right and nothing accepted.

    A rollout that the environment lost has no reward: its record is all zero and must be masked by `outcome.is_valid`.
    """

    value: float
    submission: float
    field_accuracy: float
    progress: float
    is_success: bool
    is_near_miss: bool

    @classmethod
    def of(cls, outcome: Outcome, value: float) -> RewardRecord:
        """Return the record of an outcome that is worth `value`."""
        return cls(
            value=value,
            submission=submission_of(outcome),
            field_accuracy=accuracy_of(outcome),
            progress=progress_of(outcome),
            is_success=outcome.is_success,
            is_near_miss=outcome.is_near_miss,
        )


def accuracy_of(outcome: Outcome) -> float:
    """F: right values among the gold fields that had to be changed, and those that the plan spoilt."""
    counted = [result for result in outcome.fields if not result.is_default or not result.is_correct]
    num_counted = len(counted) + (not outcome.is_clean)
    return sum(result.is_correct for result in counted) / num_counted if counted else 0.0


def has_changed_something(outcome: Outcome) -> bool:
    """At least one gold field went from something else to its right value."""
    return any(result.is_correct and not result.is_default for result in outcome.fields)


def submission_of(outcome: Outcome) -> float:
    """S, gated."""
    return float(outcome.is_submitted and has_changed_something(outcome))


def progress_of(outcome: Outcome) -> float:
    """P, gated: pages left behind out of all pages of the form."""
    if not has_changed_something(outcome):
        return 0.0
    if outcome.is_submitted:
        return 1.0
    return max(0, outcome.pages_reached - 1) / max(1, outcome.num_pages)


def num_repeats(outcome: Outcome) -> int:
    """Submissions beyond the first: those the server saw, and those that the plan still asked for afterwards."""
    still_asked = sum(item.status == "skipped" and item.text.startswith("submit ") for item in outcome.actions)
    return max(0, outcome.num_submissions - 1) + still_asked
