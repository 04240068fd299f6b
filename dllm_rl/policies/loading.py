"""Load a policy: a built-in warm start, a folder, or a checkpoint of a hub; save one; put a LoRA adapter on one."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.files import replace_folder, sha256
from dllm_rl.policies.base import COMMON, BasePolicy, PolicyFacts, read_config
from dllm_rl.policies.probe import check_model
from dllm_rl.policies.tiny import TinyConfig, TinyForPlans

BUILTIN = "builtin:"
CHECKPOINTS = Path(__file__).resolve().parent.parent / "checkpoints"
_DIGEST_FILE = "digest.json"


def load_policy(name_or_path: str, *, device: str = "cpu", facts: dict[str, Any] | None = None) -> BasePolicy:
    """Load `builtin:<family>`, a folder written by `save_policy` or `save_pretrained`, or a hub id.

    facts: see `PolicyFacts`; needed (at least `family`) where the checkpoint's config has no `policy` section.
    Raises CheckpointError where the checkpoint is missing, its hash is wrong, or its model breaks a promise of the
    family (`dllm_rl.policies.probe`), and ConfigError where facts are lacking.
    """
    path = resolve(name_or_path)
    folder = Path(path)
    if folder.is_dir():
        verify(folder)
    config = read_config(folder) if folder.is_dir() else {}
    if config:
        # Before its weights are read.
        checked_facts(name_or_path, config.get("policy", {}), facts or {})
    is_ours = config.get("model_type") == TinyConfig.model_type
    if is_ours:
        model: Any = TinyForPlans.from_pretrained(path, dtype=torch.float32)
        stored = dict(model.config.policy)
        source = _tokenizer_folder(folder, stored["family"]) if folder.is_dir() else path
        tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(source)
    else:
        model, tokenizer, stored = _load_foreign(path, facts or {})
    policy_class, known = checked_facts(name_or_path, stored, facts or {})
    policy = policy_class(model.to(device).eval(), tokenizer, known)
    if not is_ours:
        check_model(policy, name_or_path)
    return policy


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
    others = {item.name for item in fields(PolicyFacts)} - COMMON - policy_class.own_facts
    for name in given.keys() & others:
        raise ConfigError(
            f"'{checkpoint}': fact {name}={given[name]!r} was given; the {known.family} family does not read it. "
            "Leave it out."
        )
    return policy_class, known


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


def _load_foreign(path: str, facts: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """A stock Hugging Face decoder; bidirectional families are built with `is_causal = False`."""
    try:
        config = AutoConfig.from_pretrained(path)
        stored = dict(getattr(config, "policy", None) or {})
        family = {**stored, **facts}.get("family")
        if family is not None and registry.get("policy", str(family)).is_bidirectional:
            config.is_causal = False
        tokenizer = AutoTokenizer.from_pretrained(path)
        model: Any = AutoModelForCausalLM.from_pretrained(path, config=config)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load '{path}': {str(error).splitlines()[0]} Expected builtin:<family>, a folder with config.json "
            "and safetensors, or a hub id that this machine can reach."
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return model, tokenizer, stored


def save_policy(policy: BasePolicy, folder: Path, *, half: bool = False) -> str:
    """Write model, tokenizer and facts beside a hash of every file; atomic by rename. Returns the digest.

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


def add_lora(
    policy: BasePolicy, *, rank: int = 16, alpha: float = 32.0, targets: Sequence[str] | None = None, seed: int = 0
) -> None:
    """Put a fresh low-rank adapter (LoRA, 2106.09685) on the policy's model, in place; at first it changes nothing.

    Only the adapter is trained; the trainer takes the model under it as the reference policy.

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
