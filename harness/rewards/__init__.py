"""Rewards: a number for an outcome, one registered class each, and the components that they are made of."""

from harness.rewards.base import (
    RewardRecord,
    accuracy_of,
    has_changed_something,
    num_repeats,
    progress_of,
    submission_of,
)
from harness.rewards.schemes import Shaped, Success, Tree

__all__ = [
    "RewardRecord",
    "Shaped",
    "Success",
    "Tree",
    "accuracy_of",
    "has_changed_something",
    "num_repeats",
    "progress_of",
    "submission_of",
]
