"""Training and evaluation: rollouts of one policy in one environment, the loop that learns from them, warm starts."""

from dllm_rl.training.config import TrainConfig
from dllm_rl.training.engine import RolloutBatch, RolloutEngine, evaluate, rollout
from dllm_rl.training.ranks import ALONE, Ranks
from dllm_rl.training.trainer import Trainer
from dllm_rl.training.warmstart import Demonstration, WarmStartConfig, warm_start

__all__ = [
    "ALONE",
    "Demonstration",
    "Ranks",
    "RolloutBatch",
    "RolloutEngine",
    "TrainConfig",
    "Trainer",
    "WarmStartConfig",
    "evaluate",
    "rollout",
    "warm_start",
]
