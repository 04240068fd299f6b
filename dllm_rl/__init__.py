"""dllm_rl: how reinforcement learning changes a diffusion language model that must act on the web.

The names below are what a script needs; docs/python.md uses them. `build` and `register` reach objectives, samplers,
environments and rewards by name, so this package imports none of the others. What judges runs (`diagnose`, presets) is
in `experiments`.

Each name is imported at its first use: importing this package loads no machine-learning stack. It sets how the threads
of PyTorch wait (`dllm_rl.threads`), which works where PyTorch is imported later.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dllm_rl import threads as threads

if TYPE_CHECKING:
    from dllm_rl.environment import Environment
    from dllm_rl.errors import DllmRlError
    from dllm_rl.load_options import LoadOptions, LoraOptions
    from dllm_rl.policies.loading import load_policy, save_policy
    from dllm_rl.records.rollout import Rollout
    from dllm_rl.records.tasks import Task
    from dllm_rl.registry import build, names, register
    from dllm_rl.session import Session
    from dllm_rl.training.config import TrainConfig
    from dllm_rl.training.engine import RolloutEngine, evaluate, rollout
    from dllm_rl.training.trainer import Trainer

__version__ = "0.1.0"

_HOME = {
    "DllmRlError": "errors",
    "Environment": "environment",
    "LoadOptions": "load_options",
    "LoraOptions": "load_options",
    "Rollout": "records.rollout",
    "RolloutEngine": "training.engine",
    "Session": "session",
    "Task": "records.tasks",
    "TrainConfig": "training.config",
    "Trainer": "training.trainer",
    "build": "registry",
    "evaluate": "training.engine",
    "load_policy": "policies.loading",
    "names": "registry",
    "register": "registry",
    "rollout": "training.engine",
    "save_policy": "policies.loading",
}

__all__ = [
    "DllmRlError",
    "Environment",
    "LoadOptions",
    "LoraOptions",
    "Rollout",
    "RolloutEngine",
    "Session",
    "Task",
    "TrainConfig",
    "Trainer",
    "build",
    "evaluate",
    "load_policy",
    "names",
    "register",
    "rollout",
    "save_policy",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module, and keep it."""
    if name not in _HOME:
        raise AttributeError(f"module 'dllm_rl' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(f"dllm_rl.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
