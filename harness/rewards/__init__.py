"""Rewards: a number for an outcome, one registered class each, and the components that they are made of."""

from dllm_rl.records.tasks import RewardRecord
from harness.rewards.schemes import (
    Shaped,
    Success,
    Tree,
    accuracy_of,
    num_repeats,
    progress_of,
    record_of,
    submission_of,
)

__all__ = [
    "RewardRecord",
    "Shaped",
    "Success",
    "Tree",
    "accuracy_of",
    "num_repeats",
    "progress_of",
    "record_of",
    "submission_of",
]
