"""What the server's word amounts to, in parts: the truth about an episode, recorded whatever is paid.

S submission: the server accepted. F field accuracy over the gold fields that the untouched page did not hold already; a
default that the plan has spoilt counts against it, and answers that nobody asked for count as one more wrong field.
P progress: share of the pages left behind (all when accepted).
S and P count only once at least one gold field has been changed to its right value, so that submit-only is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from dllm_rl.records.tasks import Outcome, RewardRecord


def record_of(
    outcome: Outcome, value: float, *, claim: float | None = None, components: Mapping[str, float] | None = None
) -> RewardRecord:
    """Return the record of an outcome for which `value` is paid.

    Args:
        claim: As `RewardRecord` has it.
        components: As `RewardRecord` has them.
    """
    return RewardRecord(
        value=value,
        submission=submission_of(outcome),
        field_accuracy=accuracy_of(outcome),
        progress=progress_of(outcome),
        claim=claim,
        components=components or {},
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
