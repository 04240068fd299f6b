"""Checks that a plug-in keeps the promises of its protocol; third parties run the same ones as we do."""

from dllm_rl.testing.objective import PROPERTIES, PropertyError, check_objective
from dllm_rl.testing.policies import sampled
from dllm_rl.testing.reward import REWARD_PROPERTIES, check_reward
from dllm_rl.testing.sampler import SAMPLER_PROPERTIES, check_sampler

__all__ = [
    "PROPERTIES",
    "REWARD_PROPERTIES",
    "SAMPLER_PROPERTIES",
    "PropertyError",
    "check_objective",
    "check_reward",
    "check_sampler",
    "sampled",
]
