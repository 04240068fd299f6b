"""Low-rank adapters (LoRA, 2106.09685): put one on a policy, load one that was saved; activations computed again."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.hub import commit_of, needs_hub
from dllm_rl.load_options import LoadOptions, LoraOptions
from dllm_rl.policies.base import BasePolicy, read_config
from dllm_rl.policies.checkpoints import weights_digest
from dllm_rl.policies.head import without_adapter

ADAPTER_FILE = "adapter_config.json"
# What the configuration of a model with an adapter says of the checkpoint under it: the hash of its weights, or its
# commit.
_BASE = "adapter_base"


def add_lora(policy: BasePolicy, options: LoraOptions = LoraOptions(), *, seed: int = 0) -> None:
    """Put a fresh adapter on the policy's model, in place; at first it changes nothing.

    Only the adapter is trained. The model without it serves as the reference policy. Dropout is off, because it would
    make ratios differ from 1 on policy.
    Raises ConfigError where peft is not installed, or no layer has such a name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy.model = adapted(policy.model, options).eval()


def adapted(model: torch.nn.Module, options: LoraOptions) -> Any:
    """Return the model with a fresh adapter. Raises ConfigError as `add_lora`."""
    require_peft()
    from peft import LoraConfig, get_peft_model  # pyright: ignore[reportMissingImports]

    wanted: Any = "all-linear" if options.targets is None else list(options.targets)
    config = LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=0.0, target_modules=wanted)  # type: ignore[arg-type]
    try:
        return get_peft_model(model, config)  # type: ignore[arg-type]
    except ValueError as error:
        layers = sorted(
            {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        )
        raise ConfigError(
            f"no layer of this model is called {', '.join(options.targets or ())}. Its linear layers: "
            f"{', '.join(layers)}."
        ) from error


def base_of_adapter(folder: Path) -> str | None:
    """Return the checkpoint that a folder's adapter belongs on; None where the folder holds no adapter."""
    path = folder / ADAPTER_FILE
    return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]) if path.is_file() else None


def bind_adapter(policy: BasePolicy, base: str, options: LoadOptions) -> None:
    """Note in the model's configuration which weights the adapter belongs on. They are saved with it.

    Args:
        base: Folder or hub id of the checkpoint.
    """
    config: Any = policy.model.config
    if needs_hub(base):
        setattr(config, _BASE, {"revision": commit_of(base, options.revision) or options.revision})
    else:
        setattr(config, _BASE, {"digest": weights_digest(Path(base))})


def at_base(folder: Path, base: str, options: LoadOptions) -> LoadOptions:
    """Return the options under which the weights are loaded that an adapter belongs on.

    Raises CheckpointError where the checkpoint is not there, or has other ones now, and ConfigError where another
    revision was asked for.
    """
    stated = read_config(folder).get(_BASE, {})
    digest, revision = stated.get("digest"), stated.get("revision")
    if digest is not None and not Path(base).is_dir():
        # A relative path that leads nowhere has the form of a hub id.
        raise CheckpointError(
            f"adapter '{folder}' was trained on the checkpoint '{base}', which was not found "
            f"{'here' if Path(base).is_absolute() else f'in {Path.cwd()}'}. Put that checkpoint, or a link to it, there"
            f"{'' if Path(base).is_absolute() else ', or start where it is'}."
        )
    if digest is not None and digest != weights_digest(Path(base)):
        raise CheckpointError(
            f"adapter '{folder}' was trained on other weights than '{base}' has now. Give the checkpoint its weights "
            "back, or train an adapter on these."
        )
    if revision is None or options.revision == revision:
        return options
    if options.revision is not None:
        raise ConfigError(
            f"revision={options.revision} was given; adapter '{folder}' was trained on revision {revision} of "
            f"'{base}'. Leave it out."
        )
    return options.model_copy(update={"revision": revision})


def options_of_adapter(folder: Path) -> LoraOptions:
    """Return what a saved adapter was made with."""
    stored = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
    targets = tuple(sorted(stored["target_modules"]))
    return LoraOptions(rank=stored["r"], alpha=stored["lora_alpha"], targets=targets)


def load_adapter(policy: BasePolicy, folder: Path) -> None:
    """Put a saved adapter on the policy's model, in place; it can be trained further."""
    require_peft()
    from peft import PeftModel  # pyright: ignore[reportMissingImports]

    model: Any = policy.model
    policy.model = PeftModel.from_pretrained(model, folder, is_trainable=True).eval()


def checkpoint_activations(policy: BasePolicy) -> None:
    """Let the model compute activations again on the way back, in place.

    transformers does so in training mode alone, and a policy scores in evaluation mode. So its layers, but nothing in
    them, are in training mode while gradients are wanted; where none are, keys and values can be kept.
    Raises ConfigError where the model cannot.
    """
    model: Any = without_adapter(policy.model)
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ConfigError(
            f"gradient_checkpointing was set, and {type(model).__name__} cannot compute its activations again. Leave "
            "it out."
        )
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    model.register_forward_pre_hook(functools.partial(_set_mode, layers))


def _set_mode(layers: Sequence[torch.nn.Module], module: torch.nn.Module, inputs: Any) -> None:
    for layer in layers:
        layer.training = torch.is_grad_enabled()


def require_peft() -> None:
    """Raise ConfigError where peft is not installed."""
    if find_spec("peft") is None:
        raise ConfigError("an adapter needs peft, which is not installed. `pip install dllm-rl[peft]`.")
