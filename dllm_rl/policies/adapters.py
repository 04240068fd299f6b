"""Low-rank adapters (LoRA, 2106.09685) by peft, an extra: `pip install dllm-rl[peft]`.

Only the adapter is trained; the trainer takes the model under it as the reference policy
(`dllm_rl.training.reference`).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch

from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy


def add_lora(
    policy: BasePolicy, *, rank: int = 16, alpha: float = 32.0, targets: Sequence[str] | None = None, seed: int = 0
) -> None:
    """Put a fresh adapter on the policy's model, in place; at first it changes nothing.

    targets: ends of the names of the linear layers that get one, None = all but the output head. alpha / rank scales
    the update. There is no dropout: it would make ratios differ from 1 on policy.
    Raises ConfigError where peft is not installed, or no layer has such a name.
    """
    if find_spec("peft") is None:
        raise ConfigError("an adapter needs peft, which is not installed. `pip install dllm-rl[peft]`.")
    from peft import LoraConfig, get_peft_model  # pyright: ignore[reportMissingImports]

    wanted: Any = "all-linear" if targets is None else list(targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=wanted)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            adapted: Any = get_peft_model(policy.model, config)  # type: ignore[arg-type]
        except ValueError as error:
            layers = sorted(
                {name.rsplit(".", 1)[-1] for name, m in policy.model.named_modules() if isinstance(m, torch.nn.Linear)}
            )
            raise ConfigError(
                f"no layer of this model is called {', '.join(targets or ())}. Its linear layers: {', '.join(layers)}."
            ) from error
    policy.model = adapted.eval()
