"""Published checkpoints whose weights are a stock architecture under other names: LLaDA is Llama, Dream is Qwen2, SDAR
and the a2d models of dllm are what they were adapted from.

They are loaded as the stock architecture, so no code of theirs runs. What a checkpoint's config.json states (MASK, size
of a block) is read from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dllm_rl.errors import CheckpointError, ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A kind of published checkpoint.

    architecture: model type of transformers that it is.
    settings: the architecture's settings, from the checkpoint's. Raises CheckpointError where they are not the
        architecture's.
    weights: patterns of the names of its weights, and the names that the architecture has for them.
    facts: what holds for all checkpoints of the kind.
    needed: facts that such a checkpoint must state, or its user.
    mask_token: what MASK is called, where the tokenizer does not say which token it is.
    """

    architecture: str
    settings: Callable[[Mapping[str, Any]], dict[str, Any]]
    weights: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    mask_token: str | None = None


def published(config: Mapping[str, Any]) -> Published | None:
    """Return the kind that a checkpoint's config.json belongs to; None where it is loaded as it says."""
    name = str(config.get("model_type", ""))
    if name.startswith(_A2D):
        return Published(architecture=name.removeprefix(_A2D), settings=_same_settings)
    # The mixture of experts of the same name is another architecture.
    return None if name == "llada" and "n_layers" not in config else _KINDS.get(name)


def stated_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that a config.json states: those of its kind, its own keys, and its section `policy`."""
    kind = published(config)
    found = {} if kind is None else dict(kind.facts)
    for key, fact in (("mask_token_id", "mask_id"), ("block_size", "block_size")):
        if isinstance(config.get(key), int):
            found[fact] = config[key]
    return found | dict(config.get("policy") or {})


def refuse_unstated(name: str, kind: Published, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError where a fact that the kind needs is stated nowhere."""
    for fact in kind.needed:
        if fact not in facts:
            raise ConfigError(
                f"'{name}' does not state its {fact}, and another one than it was trained with would read the canvas "
                f"wrongly. Give facts: {{{fact}: ...}} as its model card says."
            )


# Keys that belong to the file, not to the model.
_OF_THE_FILE = ("architectures", "auto_map", "model_type", "attn_implementation", "transformers_version", "policy")
_A2D = "a2d-"


def _same_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same keys mean the same there."""
    return {key: value for key, value in config.items() if key not in _OF_THE_FILE}


# What LLaDA's code can also do, and Llama cannot.
_LLADA_IS_LLAMA = {
    "block_type": "llama",
    "block_group_size": 1,
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "rope": True,
    "alibi": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "clip_qkv": None,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "scale_logits": False,
}


def _llada_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Llama's settings, from LLaDA's."""
    for key, value in _LLADA_IS_LLAMA.items():
        if config.get(key, value) not in (value, None):
            raise CheckpointError(
                f"this LLaDA checkpoint has {key}={config[key]!r}; with {value!r} it would be a Llama, which is what "
                "it can be loaded as. Set trust_remote_code to run its own code."
            )
    width = config["d_model"]
    return {
        "vocab_size": config.get("embedding_size") or config["vocab_size"],
        "hidden_size": width,
        "intermediate_size": config.get("mlp_hidden_size") or config["mlp_ratio"] * width,
        "num_hidden_layers": config["n_layers"],
        "num_attention_heads": config["n_heads"],
        "num_key_value_heads": config.get("n_kv_heads") or config["n_heads"],
        "max_position_embeddings": config["max_sequence_length"],
        "rms_norm_eps": config.get("rms_norm_eps", 1e-5),
        "rope_parameters": {"rope_type": "default", "rope_theta": config.get("rope_theta", 10_000.0)},
        "tie_word_embeddings": config.get("weight_tying", False),
        **{key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "dtype") if key in config},
    }


_BLOCK, _LAYER = r"^model\.transformer\.blocks\.(\d+)\.", r"model.layers.\1."
_LLADA_WEIGHTS = {
    r"^model\.transformer\.wte\.": "model.embed_tokens.",
    r"^model\.transformer\.ln_f\.": "model.norm.",
    r"^model\.transformer\.ff_out\.": "lm_head.",
    _BLOCK + r"attn_norm\.": _LAYER + "input_layernorm.",
    _BLOCK + r"q_proj\.": _LAYER + "self_attn.q_proj.",
    _BLOCK + r"k_proj\.": _LAYER + "self_attn.k_proj.",
    _BLOCK + r"v_proj\.": _LAYER + "self_attn.v_proj.",
    _BLOCK + r"attn_out\.": _LAYER + "self_attn.o_proj.",
    _BLOCK + r"ff_norm\.": _LAYER + "post_attention_layernorm.",
    _BLOCK + r"ff_proj\.": _LAYER + "mlp.gate_proj.",
    _BLOCK + r"up_proj\.": _LAYER + "mlp.up_proj.",
    _BLOCK + r"ff_out\.": _LAYER + "mlp.down_proj.",
}

_KINDS = {
    "llada": Published(
        architecture="llama", settings=_llada_settings, weights=_LLADA_WEIGHTS, facts={"family": "masked"}
    ),
    "Dream": Published(architecture="qwen2", settings=_same_settings, facts={"family": "masked", "is_shifted": True}),
    "sdar": Published(
        architecture="qwen3",
        settings=_same_settings,
        facts={"family": "block"},
        needed=("block_size",),
        mask_token="<|MASK|>",
    ),
}
