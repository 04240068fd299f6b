"""What a policy needs of this machine, asked before anything runs: its device, and the packages that train it."""

from __future__ import annotations

from pathlib import Path

from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoadOptions


def refuse_unavailable(owner: str, checkpoint: str | None, options: LoadOptions) -> None:
    """Raise ConfigError where this machine lacks what a policy is loaded or trained with.

    Args:
        owner: Whose options they are, for the message.
        checkpoint: What it starts from; None for random weights.
    """
    from dllm_rl.policies.adapters import base_of_adapter, require_peft
    from dllm_rl.policies.devices import usable_device
    from dllm_rl.training.optimiser import require_optimiser

    try:
        usable_device(options)
        if options.lora is not None or (checkpoint is not None and base_of_adapter(Path(checkpoint)) is not None):
            require_peft()
        require_optimiser(options.optimiser)
    except ConfigError as error:
        raise ConfigError(f"{owner}: {error}") from None
