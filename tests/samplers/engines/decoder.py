"""A tiny stock decoder as an autoregressive policy, in single precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.loading import load_policy
from tests.dllm_rl.policies import checkpoints
from tests.tiny_policies import tokenizer

FACTS = {"family": "autoregressive", "canvas_length": 24, "max_prompt": 120}


def write_qwen3(folder: Path, *, is_tied: bool = False) -> str:
    """As Qwen/Qwen3-0.6B is; random weights."""
    words = tokenizer()
    words.save_pretrained(folder)
    model = checkpoints.stock("qwen3", vocab_size=len(words) + 3, is_tied=is_tied)
    settings = {name: value for name, value in model.config.to_dict().items() if name != "is_causal"}
    config = {**settings, "architectures": ["Qwen3ForCausalLM"], "eos_token_id": words.eos_token_id}
    return checkpoints.write(folder, model, config)


def qwen3(folder: Path, *, is_tied: bool = False, facts: dict[str, Any] | None = None, **options: Any) -> Any:
    """That checkpoint as a policy."""
    path = write_qwen3(folder, is_tied=is_tied)
    return load_policy(path, facts={**FACTS, **(facts or {})}, options=LoadOptions(dtype="float32", **options))
