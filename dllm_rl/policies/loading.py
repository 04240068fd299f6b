"""Load a policy: a built-in warm start, a folder, an adapter, or a checkpoint of a hub; save one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.files import replace_folder
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.adapters import (
    add_lora,
    at_base,
    base_of_adapter,
    bind_adapter,
    checkpoint_activations,
    load_adapter,
)
from dllm_rl.policies.base import BasePolicy, read_config
from dllm_rl.policies.checkpoints import (
    checked_facts,
    checkpoint_digest,
    refuse_other_files,
    resolve,
    tokenizer_folder,
    unread_facts,
    verify,
    write_digest,
)
from dllm_rl.policies.devices import usable_device
from dllm_rl.policies.foreign import load_foreign
from dllm_rl.policies.probe import check_model
from dllm_rl.policies.published import stated_facts
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans


def load_policy(
    name_or_path: str, *, facts: dict[str, Any] | None = None, options: LoadOptions | None = None
) -> BasePolicy:
    """Load `builtin:<family>`, a folder written by `save_policy` or `save_pretrained`, or a hub id.

    Args:
        facts: See `PolicyFacts`; needed (at least `family`) where the checkpoint does not state them.

    Raises CheckpointError where the checkpoint is missing, its hash is wrong, or its model breaks a promise of the
    family (`dllm_rl.policies.probe`), and ConfigError where facts are lacking or the options cannot be had here.
    """
    options = options or LoadOptions()
    device = usable_device(options)
    path = resolve(name_or_path)
    folder = Path(path)
    if folder.is_dir():
        verify(folder)
    base = base_of_adapter(folder)
    if base is not None:
        return _load_adapted(folder, base, facts or {}, options)
    config = read_config(folder) if folder.is_dir() else {}
    if config:
        # Before its weights are read.
        checked_facts(name_or_path, stated_facts(config), facts or {})
    is_ours = config.get("model_type") == TinyConfig.model_type
    if is_ours:
        model, tokenizer, stored = _load_ours(path, options)
    else:
        model, tokenizer, stored = load_foreign(path, facts or {}, options)
    policy_class, known = checked_facts(name_or_path, stored, facts or {})
    policy = policy_class(model.to(device).eval(), tokenizer, known)
    if not is_ours:
        check_model(policy, name_or_path)
    if options.lora is not None:
        add_lora(policy, options.lora)
        bind_adapter(policy, path, options)
    if options.gradient_checkpointing:
        checkpoint_activations(policy)
    return policy


def _load_adapted(folder: Path, base: str, facts: dict[str, Any], options: LoadOptions) -> BasePolicy:
    """The policy of an adapter's folder: the checkpoint that it was trained on, with the adapter."""
    if options.lora is not None:
        raise ConfigError(f"'{folder}' is an adapter, and lora would put another one on it. Leave lora out.")
    stored = read_config(folder).get("policy", {})
    others = unread_facts(registry.get("policy", str(stored["family"])))
    read = {name: value for name, value in stored.items() if name not in others}
    options = at_base(folder, base, options)
    policy = load_policy(base, facts={**read, **facts}, options=options)
    load_adapter(policy, folder)
    bind_adapter(policy, base, options)
    return policy


def _load_ours(path: str, options: LoadOptions) -> tuple[Any, Any, dict[str, Any]]:
    """The built-in model, which has attention of its own. It ships in half precision and computes in float32."""
    if options.attention is not None:
        raise ConfigError(
            f"attention={options.attention} was given; the built-in model has one attention of its own. Leave it out."
        )
    dtype = getattr(torch, options.dtype or "float32")
    model: Any = TinyForPlans.from_pretrained(path, dtype=dtype)
    stored = dict(model.config.policy)
    source = tokenizer_folder(Path(path), stored["family"])
    return model, PreTrainedTokenizerFast.from_pretrained(source), stored


def save_policy(
    policy: BasePolicy, folder: Path, *, half: bool = False, beside: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Write model, tokenizer and facts beside a hash of every file; atomic by rename. Returns the digest.

    Of a model with an adapter, the adapter alone; it loads on the checkpoint that it was put on.

    Args:
        half: Store float16 (what ships inside the package).
        beside: Texts of further files by name; they are there when the folder is.

    Raises CheckpointError where the folder holds anything but a saved policy, which this one replaces.
    """
    refuse_other_files(folder)
    policy.model.config.policy = policy.facts.to_dict()  # type: ignore[union-attr]
    model: Any = policy.model
    with replace_folder(folder) as temporary:
        if half:
            state = {key: value.to(torch.float16) for key, value in model.state_dict().items()}
            model.save_pretrained(temporary, state_dict=state)
        else:
            model.save_pretrained(temporary)
        if not (temporary / "config.json").is_file():
            # An adapter is written without one, and the facts belong there.
            model.config.save_pretrained(temporary)
        policy.tokenizer.save_pretrained(temporary)
        for name, text in beside.items():
            (temporary / name).write_text(text, encoding="utf-8")
        write_digest(temporary)
    return checkpoint_digest(folder)
