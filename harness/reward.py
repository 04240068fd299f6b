"""Rewards as pure functions of an outcome. In [0, 1]; the oracle plan is exactly 1, the empty plan exactly 0.

S submission: the server accepted. F field accuracy over the gold fields that the untouched page did not hold already; a
default that the plan has spoilt counts against it, and answers that nobody asked for count as one field more that is
wrong. P progress: share of the pages left behind (all when accepted).
S and P count only once at least one gold field has been changed to its right value, so that submit-only is 0.
The shaped weights are those of the original study of form filling, with P in place of its "executed share".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dllm_rl.errors import ConfigError
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


def shaped(
    outcome: Outcome,
    *,
    submission: float = 0.4,
    field_accuracy: float = 0.4,
    progress: float = 0.2,
    repeat_penalty: float = 0.1,
) -> RewardRecord:
    """Weighted sum of S, F and P, less a penalty for every repeated submission. Raises ConfigError for bad weights."""
    if abs(submission + field_accuracy + progress - 1) > 1e-9 or min(submission, field_accuracy, progress) < 0:
        raise ConfigError(
            f"reward weights {submission:g}, {field_accuracy:g}, {progress:g}: give shares that sum to 1."
        )
    parts = (submission_of(outcome), accuracy_of(outcome), progress_of(outcome))
    # Exactly 1 for the oracle, which the rounding of weights such as .4 + .4 + .2 does not promise.
    whole = 1.0 if parts == (1.0, 1.0, 1.0) else submission * parts[0] + field_accuracy * parts[1] + progress * parts[2]
    return _record(outcome, max(0.0, whole - repeat_penalty * num_repeats(outcome)))


def tree(outcome: Outcome, *, repeat_penalty: float = 0.1) -> RewardRecord:
    """Rule-based progress tree, for credit where nothing was accepted: how far, how right, and were errors put right.

    Three branches of equal weight under the gate of S and P: pages left behind; F; the last word of the server (1 for
    an acceptance, 0.5 where it refused a submission with fewer errors than the one before, else 0). What is accepted
    without being a success earns at most 0.9.
    """
    if not has_changed_something(outcome):
        return _record(outcome, 0.0)
    branches = (progress_of(outcome), accuracy_of(outcome), _last_word(outcome))
    whole = 1.0 if branches == (1.0, 1.0, 1.0) else 0.9 * sum(branches) / 3
    return _record(outcome, max(0.0, whole - repeat_penalty * num_repeats(outcome)))


def _last_word(outcome: Outcome) -> float:
    if outcome.is_submitted:
        return 1.0
    errors = outcome.errors_by_rejection
    return 0.5 if len(errors) > 1 and errors[-1] < errors[-2] else 0.0


def success(outcome: Outcome) -> RewardRecord:
    """0 or 1: accepted, every gold field equal, every other field at its default, and something was changed."""
    return _record(outcome, float(outcome.is_success and has_changed_something(outcome)))


def _record(outcome: Outcome, value: float) -> RewardRecord:
    return RewardRecord(
        value=value,
        submission=submission_of(outcome),
        field_accuracy=accuracy_of(outcome),
        progress=progress_of(outcome),
        is_success=outcome.is_success,
        is_near_miss=outcome.is_near_miss,
    )


SCHEMES: dict[str, Callable[..., RewardRecord]] = {"outcome": success, "shaped": shaped, "tree": tree}
