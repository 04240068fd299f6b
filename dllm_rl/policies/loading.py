"""Load a policy: a built-in warm start, a folder, an adapter, or a checkpoint of a hub; save one."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.files import replace_folder, sha256
from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.adapters import add_lora, base_of_adapter, checkpoint_activations, load_adapter
from dllm_rl.policies.base import COMMON, BasePolicy, PolicyFacts, read_config
from dllm_rl.policies.foreign import load_foreign
from dllm_rl.policies.probe import check_model
from dllm_rl.policies.published import stated_facts
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans

BUILTIN = "builtin:"
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
_DIGEST_FILE = "digest.json"


def load_policy(
    name_or_path: str, *, facts: dict[str, Any] | None = None, options: LoadOptions | None = None
) -> BasePolicy:
    """Load `builtin:<family>`, a folder written by `save_policy` or `save_pretrained`, or a hub id.

    facts: see `PolicyFacts`; needed (at least `family`) where the checkpoint does not state them.
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
    if options.gradient_checkpointing:
        checkpoint_activations(policy)
    return policy


def _load_adapted(folder: Path, base: str, facts: dict[str, Any], options: LoadOptions) -> BasePolicy:
    """The policy of an adapter's folder: the checkpoint that it was trained on, with the adapter."""
    if options.lora is not None:
        raise ConfigError(f"'{folder}' is an adapter, and lora would put another one on it. Leave lora out.")
    stored = read_config(folder).get("policy", {})
    others = _unread_facts(registry.get("policy", str(stored["family"])))
    read = {name: value for name, value in stored.items() if name not in others}
    policy = load_policy(base, facts={**read, **facts}, options=options)
    load_adapter(policy, folder)
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
    source = _tokenizer_folder(Path(path), stored["family"])
    return model, PreTrainedTokenizerFast.from_pretrained(source), stored


def usable_device(options: LoadOptions) -> torch.device:
    """Return the device. Raises ConfigError where this machine lacks it, or it lacks the attention."""
    device = torch.device(options.device)
    if device.type == "cpu":
        if options.attention == "flex_attention":
            raise ConfigError(
                "attention=flex_attention was given with device=cpu, where its kernels have no backward pass. Leave it "
                "out, or take sdpa or eager."
            )
        return device
    backend = torch.cuda if device.type == "cuda" else torch.mps
    count = backend.device_count() if device.type == "cuda" or torch.backends.mps.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigError(
            f"device={options.device} was given; this machine has {count} of that kind with PyTorch "
            f"{torch.__version__}. Take device=cpu, or install a PyTorch that is built for your GPU."
        )
    return device


def checked_facts(
    checkpoint: str, stored: dict[str, Any], given: dict[str, Any]
) -> tuple[type[BasePolicy], PolicyFacts]:
    """Return the policy class and the facts of a checkpoint.

    stored: what its config.json says, of which a family may leave facts unread.
    given: what is laid over it.
    Raises ConfigError where the family is not said, and for facts that are unknown, wrong or of another family.
    """
    merged = {**stored, **given}
    if "family" not in merged:
        raise ConfigError(
            f"'{checkpoint}' does not say its policy family. Give facts such as family=masked, mask_id=..."
        )
    policy_class: type[BasePolicy] = registry.get("policy", str(merged["family"]))
    known = policy_class.facts_class.from_dict(merged)
    for name in given.keys() & _unread_facts(policy_class):
        raise ConfigError(
            f"'{checkpoint}': fact {name}={given[name]!r} was given; the {known.family} family does not read it. "
            "Leave it out."
        )
    return policy_class, known


def _unread_facts(policy_class: type[BasePolicy]) -> set[str]:
    """Facts of other families."""
    return {item.name for item in fields(PolicyFacts)} - COMMON - policy_class.own_facts


def resolve(name: str) -> str:
    """The folder of a built-in checkpoint; any other name as it is. Raises CheckpointError for an unknown one."""
    if name.startswith(BUILTIN):
        known = builtin_names()
        short = name.removeprefix(BUILTIN)
        if short not in known:
            near = difflib.get_close_matches(short, known, n=1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            raise CheckpointError(
                f"no built-in warm start '{short}'. {hint}Known: {', '.join(known) or '(none)'}. "
                "`dllm-rl warmstart` makes those of a recipe."
            )
        return str(CHECKPOINTS / short)
    return name


def builtin_names() -> list[str]:
    """Names of the checkpoints that ship, without `builtin:`."""
    return sorted(path.name for path in CHECKPOINTS.glob("*") if path.is_dir())


def _tokenizer_folder(folder: Path, family: str) -> Path:
    """Where a checkpoint's tokenizer lies: further checkpoints of a family that ship share that of its first one."""
    is_shared = folder.parent == CHECKPOINTS and not (folder / "tokenizer.json").is_file()
    return CHECKPOINTS / family if is_shared else folder


def save_policy(policy: BasePolicy, folder: Path, *, half: bool = False) -> str:
    """Write model, tokenizer and facts beside a hash of every file; atomic by rename. Returns the digest.

    Of a model with an adapter, the adapter alone; it loads on the checkpoint that it was put on.

    half: store float16 (what ships inside the package).
    """
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
        (temporary / _DIGEST_FILE).write_text(json.dumps(_digest_of(temporary), indent=1))
    return checkpoint_digest(folder)


def _digest_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != _DIGEST_FILE)
    return {path.name: sha256(path) for path in files}


def verify(folder: Path) -> None:
    """Compare every file with the hash written beside it. Raises CheckpointError where one differs."""
    record = folder / _DIGEST_FILE
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"'{folder}' is no checkpoint: it has no config.json. Give a folder written by save_policy."
        )
    if not record.is_file():
        return
    wanted = json.loads(record.read_text())
    found = _digest_of(folder)
    broken = sorted(name for name, value in wanted.items() if found.get(name) != value)
    if broken:
        raise CheckpointError(f"checkpoint '{folder}' is corrupt: {', '.join(broken)} differ from their recorded hash.")


def checkpoint_digest(name_or_path: str | Path) -> str:
    """One short hash of a checkpoint's weights, tokenizer and configuration, by which runs are keyed."""
    folder = Path(resolve(str(name_or_path)))
    if not folder.is_dir():
        return hashlib.sha256(str(name_or_path).encode()).hexdigest()[:16]
    files = _digest_of(folder)
    if "tokenizer.json" not in files and folder.parent == CHECKPOINTS:
        shared = _tokenizer_folder(folder, read_config(folder)["policy"]["family"])
        files |= {f"shared {name}": value for name, value in _digest_of(shared).items() if name.startswith("tokenizer")}
    text = json.dumps(files, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
