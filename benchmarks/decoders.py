"""Which decoder types of transformers serve as which policy family: tiny random models through the probe of loading.

    python -m benchmarks.decoders                       # the table of docs/results/decoders.md
    python -m benchmarks.decoders llama gemma2

A type passes for a family where every promise of `dllm_rl.policies.probe` holds, in float32 under the attention that
transformers picks, eager and sdpa alike where a type has both, and in bfloat16.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from dllm_rl import registry
from dllm_rl.errors import DllmRlError
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.layers import limits
from dllm_rl.policies.probe import check_model
from dllm_rl.testing.policies import tokenizer

# Types, with settings that a tiny one needs beside those of all.
TYPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama4_text": {},
    "mistral": {},
    "mixtral": {},
    "qwen2": {},
    "qwen2_moe": {},
    "qwen3": {},
    "qwen3_moe": {},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "gpt_oss": {},
    "gpt2": {},
    "gpt_neox": {},
    "opt": {},
    "phi": {},
    "phi3": {},
    "olmo2": {},
    "olmo3": {},
    "olmoe": {},
    "smollm3": {},
    "granite": {},
    "granitemoe": {},
    "cohere": {},
    "cohere2": {},
    "stablelm": {},
    "starcoder2": {},
    "glm4": {},
    "ernie4_5": {},
    "exaone4": {},
    "helium": {},
    "nemotron": {},
    "falcon": {},
    "mpt": {},
    "bloom": {},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": {},
    "falcon_h1": {},
    "jamba": {},
    "recurrent_gemma": {},
    "mamba": {},
    "rwkv": {},
}
_SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_HEADS = {"num_key_value_heads": 2, "head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
# Settings that a type's configuration works out of others, and cannot be given.
_DERIVED = {"falcon": ("head_dim",)}
FACTS: dict[str, Any] = {"max_prompt": 64, "canvas_length": 40}


def tiny_model(kind: str, *, is_causal: bool, attention: str | None, dtype: torch.dtype) -> Any:
    """A random model of this type, with weights that are large enough for distributions to differ."""
    words = tokenizer()
    ids = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id, "bos_token_id": None}
    settings = {**_SIZES, **_HEADS, **_EXPERTS, **ids, **TYPES[kind]}
    given = {name: value for name, value in settings.items() if name not in _DERIVED.get(kind, ())}
    config = AutoConfig.for_model(kind, vocab_size=len(words), **given)
    config.is_causal = is_causal
    torch.manual_seed(0)
    chosen = {} if attention is None else {"attn_implementation": attention}
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, **chosen).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return model


def verdict(kind: str, family: str, attention: str | None, dtype: torch.dtype) -> str | None:
    """Why the type cannot serve as this family; None where it can."""
    policy_class = registry.get("policy", family)
    model = tiny_model(kind, is_causal=not policy_class.is_bidirectional, attention=attention, dtype=dtype)
    try:
        check_model(policy_class(model, tokenizer(), PolicyFacts(family=family, **FACTS)), kind)
    except DllmRlError as error:
        return str(error)
    return None


def row_of(kind: str, families: Sequence[str]) -> list[str]:
    """Type, its attention, yes or the short reason for each family, and the window that prompt and canvas must fit."""
    usual = tiny_model(kind, is_causal=True, attention=None, dtype=torch.float32)
    attention = usual.config._attn_implementation
    settings: list[tuple[str | None, torch.dtype]] = [(None, torch.float32), (None, torch.bfloat16)]
    if attention == "sdpa":
        settings.append(("eager", torch.float32))
    found = []
    for family in families:
        reasons = (verdict(kind, family, *setting) for setting in settings)
        found.append(short(next((reason for reason in reasons if reason is not None), None)))
    window = [f"{limit}" for key, limit in limits(usual.config).items() if key != "max_position_embeddings"]
    return [kind, attention, *found, ", ".join(window)]


_SHORT = {
    "layers that are not attention": "no: other layers",
    "padding moves": "no: padding is read",
    "mask is not kept": "no: mask is dropped",
    "does not move its distribution": "no: one direction only",
    "forward fails": "no: takes no such mask",
    "not from position_ids": "no: positions are not read",
    "kept between forwards": "no: kept keys give other numbers",
}


def short(reason: str | None) -> str:
    """A reason in a few words."""
    if reason is None:
        return "yes"
    return next((text for part, text in _SHORT.items() if part in reason), reason)


def main(kinds: Sequence[str]) -> None:
    """Print the table as Markdown."""
    families = registry.names("policy")
    print(f"transformers {transformers.__version__}, PyTorch {torch.__version__}\n")
    print("| " + " | ".join(["type", "attention", *families, "window"]) + " |")
    print("|---" * (len(families) + 3) + "|")
    for kind in kinds:
        with contextlib.redirect_stderr(io.StringIO()):
            row = row_of(kind, families)
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="Default: all.")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    main(parser.parse_args().types or list(TYPES))
