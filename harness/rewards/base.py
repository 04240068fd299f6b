"""The components that rewards are made of, and the record that comes of them.

S submission: the server accepted. F field accuracy over the gold fields that the untouched page did not hold already; a
default that the plan has spoilt counts against it, and answers that nobody asked for count as one field more that is
wrong. P progress: share of the pages left behind (all when accepted).
S and P count only once at least one gold field has been changed to its right value, so that submit-only is 0.
"""

from __future__ import annotations

from dllm_rl.records.tasks import Outcome, RewardRecord


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
    """S, gated."""
    return float(outcome.is_submitted and outcome.has_changed_something)


def progress_of(outcome: Outcome) -> float:
    """P, gated: pages left behind out of all pages of the form."""
    if not outcome.has_changed_something:
        return 0.0
    if outcome.is_submitted:
        return 1.0
    return max(0, outcome.pages_reached - 1) / max(1, outcome.num_pages)


def num_repeats(outcome: Outcome) -> int:
    """Submissions beyond the first: those the server saw, and those that the plan still asked for afterwards."""
    still_asked = sum(item.status == "skipped" and item.text.startswith("submit ") for item in outcome.actions)
    return max(0, outcome.num_submissions - 1) + still_asked
