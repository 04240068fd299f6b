"""Rewards, one registered class each: of the truth, of progress, of judges, and compositions of them."""

from dllm_rl.records.truth import accuracy_of, progress_of, submission_of
from dllm_rl.reward import OutcomeReward, Reward, Score
from harness.rewards.combined import Combined
from harness.rewards.earned import Earned
from harness.rewards.flip import Flip
from harness.rewards.rule_tree import RuleTree
from harness.rewards.schemes import Shaped, Success, Tree, num_repeats
from harness.rewards.well_formed import WellFormed

__all__ = [
    "Combined",
    "Earned",
    "Flip",
    "OutcomeReward",
    "Reward",
    "RuleTree",
    "Score",
    "Shaped",
    "Success",
    "Tree",
    "WellFormed",
    "accuracy_of",
    "num_repeats",
    "progress_of",
    "submission_of",
]
