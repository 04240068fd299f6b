"""What a checkpoint says before it is loaded: where it lies, the hash of its files, and the facts of its policy.

It stands apart from `loading`, which imports transformers' model classes.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.files import sha256
from dllm_rl.policies.base import COMMON, BasePolicy, PolicyFacts, read_config

BUILTIN = "builtin:"
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
# The architecture of the built-in policies (`tiny.TinyConfig`), as a checkpoint's config.json names it.
TINY = "dllm_rl_tiny"
_DIGEST_FILE = "digest.json"
_WEIGHTS = (".safetensors", ".bin")


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


def is_tiny(name: str) -> bool:
    """Whether a checkpoint has the architecture of the built-in policies."""
    path = Path(resolve(name))
    return (path / "config.json").is_file() and read_config(path).get("model_type") == TINY


def builtin_names() -> list[str]:
    """Names of the checkpoints that ship, without `builtin:`."""
    return sorted(path.name for path in CHECKPOINTS.glob("*") if path.is_dir())


def tokenizer_folder(folder: Path, family: str) -> Path:
    """Where a checkpoint's tokenizer lies: further checkpoints of a family that ship share that of its first one."""
    is_shared = folder.parent == CHECKPOINTS and not (folder / "tokenizer.json").is_file()
    return CHECKPOINTS / family if is_shared else folder


def _digest_of(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != _DIGEST_FILE)
    return {path.name: sha256(path) for path in files}


def write_digest(folder: Path) -> None:
    """Write the hash of every file of a checkpoint beside them."""
    (folder / _DIGEST_FILE).write_text(json.dumps(_digest_of(folder), indent=1))


def refuse_other_files(folder: Path) -> None:
    """Raise CheckpointError if writing a checkpoint to this folder would delete other files."""
    record = folder / _DIGEST_FILE
    known = {_DIGEST_FILE, *(json.loads(record.read_text()) if record.is_file() else ())}
    found = sorted({path.name for path in folder.iterdir()} - known) if folder.is_dir() else []
    if found or folder.is_file():
        what = f"a folder that holds {', '.join(found[:3])}" if found else "a file"
        raise CheckpointError(
            f"'{folder}' was given to save a policy to, and is {what}: it would be removed. Give a folder that is new "
            f"or holds a saved policy alone, such as '{folder / 'policy' if found else f'{folder}-policy'}'."
        )


def verify(folder: Path) -> None:
    """Compare every file with the hash written beside it. Raises CheckpointError where one differs."""
    record = folder / _DIGEST_FILE
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"'{folder}' has no config.json, so it is not a checkpoint. Give a folder written by save_policy."
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
        shared = tokenizer_folder(folder, read_config(folder)["policy"]["family"])
        files |= {f"shared {name}": value for name, value in _digest_of(shared).items() if name.startswith("tokenizer")}
    text = json.dumps(files, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def weights_digest(folder: Path) -> str:
    """One short hash of a checkpoint's weights and configuration, whatever else lies in its folder."""
    files = [path for path in folder.iterdir() if path.suffix in _WEIGHTS or path.name == "config.json"]
    text = json.dumps({path.name: sha256(path) for path in sorted(files)})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checked_facts(
    checkpoint: str, stored: dict[str, Any], given: dict[str, Any]
) -> tuple[type[BasePolicy], PolicyFacts]:
    """Return the policy class and the facts of a checkpoint.

    Args:
        stored: What its config.json says, of which a family may leave facts unread.
        given: What is laid over it.

    Raises ConfigError where the family is not said, and for facts that are unknown, wrong or of another family.
    """
    merged = {**stored, **given}
    if "family" not in merged:
        raise ConfigError(
            f"'{checkpoint}' does not say its policy family. Give facts such as family=masked, mask_id=..."
        )
    policy_class: type[BasePolicy] = registry.get("policy", str(merged["family"]))
    known = policy_class.facts_class.from_dict(merged)
    for name in given.keys() & unread_facts(policy_class):
        raise ConfigError(
            f"'{checkpoint}': fact {name}={given[name]!r} was given; the {known.family} family does not read it. "
            "Leave it out."
        )
    return policy_class, known


def unread_facts(policy_class: type[BasePolicy]) -> set[str]:
    """Facts of other families."""
    return {item.name for item in fields(PolicyFacts)} - COMMON - policy_class.own_facts
