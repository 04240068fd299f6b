"""Published checkpoints whose weights are a stock architecture under other names.

LLaDA is Llama, LLaDA-MoE is Qwen3-MoE, LLaDA2 is GLM-4-MoE, Dream and Fast-dLLM v2 are Qwen2, SDAR and the a2d models
of dllm are what they were adapted from.

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

    Attributes:
        architecture: Model type of transformers that it is.
        settings: The architecture's settings, from the checkpoint's. Raises CheckpointError where they are not the
            architecture's.
        weights: Patterns of the names of its weights, and the names that the architecture has for them.
        divided: weights, by their new names, that are several of the architecture's, one after another.
        facts: What holds for all checkpoints of the kind.
        needed: facts that such a checkpoint must state, or its user, where it is of this family.
        mask_token: What MASK is called, where the tokenizer does not say which token it is.
    """

    architecture: str
    settings: Callable[[Mapping[str, Any]], dict[str, Any]]
    weights: Mapping[str, str] = field(default_factory=dict)
    divided: Mapping[str, list[str]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    needed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    mask_token: str | None = None


def published(config: Mapping[str, Any]) -> Published | None:
    """Return the kind that a checkpoint's config.json belongs to; None where it is loaded as it says."""
    name = str(config.get("model_type", ""))
    if name.startswith(_A2D):
        needed = {"block": ("block_size", "prompt_blocks")}
        return Published(architecture=name.removeprefix(_A2D), settings=_same_settings, needed=needed)
    if name in _REFUSED:
        raise CheckpointError(f"a checkpoint of the type '{name}' cannot serve as a policy: {_REFUSED[name]}")
    if name in ("llada", "lladamoe", "llada_moe") and "expert_intermediate_size" in config:
        # The mixture of experts has the dense model's type.
        return _LLADA_MOE
    return _KINDS.get(name)


def stated_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that a config.json states: those of its kind, its own keys, and its section `policy`."""
    kind = published(config)
    found = {} if kind is None else dict(kind.facts)
    for key, fact in (("mask_token_id", "mask_id"), ("block_size", "block_size"), ("bd_size", "block_size")):
        if isinstance(config.get(key), int):
            found[fact] = config[key]
    return found | dict(config.get("policy") or {})


def refuse_unstated(name: str, kind: Published, facts: Mapping[str, Any], *, place: str = "facts") -> None:
    """Raise ConfigError where a fact that the kind needs is stated nowhere.

    Args:
        place: Where facts can be given, for the message.
    """
    for fact in kind.needed.get(str(facts.get("family")), ()):
        if fact not in facts:
            raise ConfigError(
                f"'{name}' does not state its {fact}, and another one than it was trained with would read the canvas "
                f"wrongly. Give {place}: {{{fact}: ...}} as its model card says."
            )


# Keys that belong to the file or to its method, not to the model.
_OF_THE_FILE = (
    "architectures",
    "attn_implementation",
    "auto_map",
    "bd_size",
    "block_size",
    "model_type",
    "policy",
    "transformers_version",
)
_A2D = "a2d-"


_REFUSED = {
    "bd3lm": "its forward takes noise levels, and neither positions nor masks nor a cache. The block models of dllm "
    "(a2d), which are stock decoders, load.",
    "diffusion_gemma": "it reads the prompt by an encoder and has a noise process of its own, which no family here is.",
}


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
    _refuse_variants(config, _LLADA_IS_LLAMA, "LLaDA", "Llama")
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
        **{key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config},
        "dtype": config.get("dtype") or config.get("torch_dtype"),
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


def _refuse_variants(config: Mapping[str, Any], wanted: Mapping[str, Any], name: str, architecture: str) -> None:
    """Raise CheckpointError where a checkpoint is a variant that the stock architecture does not have."""
    for key, value in wanted.items():
        if config.get(key, value) not in (value, None):
            raise CheckpointError(
                f"this {name} checkpoint has {key}={config[key]!r}; with {value!r} it would be a {architecture}, which "
                "is what it can be loaded as."
            )


# What LLaDA-MoE's code can also do, and Qwen3-MoE cannot.
_LLADA_MOE_IS_QWEN3_MOE = {
    "clip_qkv": None,
    "moe_router_enable_expert_bias": False,
    "moe_router_score_function": "softmax",
    "partial_rotary_factor": 1,
    "qk_layernorm": True,
    "rope_scaling": None,
    "shared_expert_intermediate_size": None,
}


def _llada_moe_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen3-MoE's settings, from LLaDA-MoE's, whose code never normalises the weights of the chosen experts."""
    _refuse_variants(config, _LLADA_MOE_IS_QWEN3_MOE, "LLaDA-MoE", "Qwen3-MoE")
    return {
        **_shared_settings(config),
        "intermediate_size": config["dense_intermediate_size"],
        "moe_intermediate_size": config["expert_intermediate_size"],
        "num_experts": config["num_experts"],
        "num_experts_per_tok": config["num_experts_per_tok"],
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [layer for layer, is_sparse in enumerate(config["moe_layer_freq"]) if not is_sparse],
        "head_dim": config["hidden_size"] // config["num_attention_heads"],
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
    }


# What LLaDA2's code can also do, and GLM-4-MoE cannot.
_LLADA2_IS_GLM4_MOE = {
    "rope_scaling": None,
    "score_function": "sigmoid",
    "use_qkv_bias": False,
    "use_sliding_window": False,
}


def _llada2_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """GLM-4-MoE's settings, from LLaDA2's."""
    _refuse_variants(config, _LLADA2_IS_GLM4_MOE, "LLaDA2", "GLM-4-MoE")
    rope = {"rope_theta": config["rope_theta"], "partial_rotary_factor": config.get("partial_rotary_factor", 0.5)}
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    same = ("moe_intermediate_size", "num_experts_per_tok", "n_group", "topk_group", "routed_scaling_factor")
    return {
        **_shared_settings(config),
        **{key: config[key] for key in same},
        "intermediate_size": config["intermediate_size"],
        "n_routed_experts": config["num_experts"],
        "n_shared_experts": config["num_shared_experts"],
        "first_k_dense_replace": config.get("first_k_dense_replace", 0),
        "norm_topk_prob": config["num_experts_per_tok"] > 1,
        "use_qk_norm": config.get("use_qk_norm", True),
        "head_dim": head_dim,
        "rope_parameters": {"rope_type": "default", **rope},
        "num_nextn_predict_layers": 0,
    }


def _shared_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that have the same name in all mixtures of experts."""
    return {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "hidden_act": config.get("hidden_act", "silu"),
        "max_position_embeddings": config["max_position_embeddings"],
        "rms_norm_eps": config["rms_norm_eps"],
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        **{key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config},
        "dtype": config.get("dtype") or config.get("torch_dtype"),
    }


_LAYER_OF_LLADA2 = r"^model\.layers\.(\d+)\."
_LLADA2_WEIGHTS = {
    r"^model\.word_embeddings\.": "model.embed_tokens.",
    _LAYER_OF_LLADA2 + r"attention\.query_key_value\.": _LAYER + "self_attn.query_key_value.",
    _LAYER_OF_LLADA2 + r"attention\.dense\.": _LAYER + "self_attn.o_proj.",
    _LAYER_OF_LLADA2 + r"attention\.query_layernorm\.": _LAYER + "self_attn.q_norm.",
    _LAYER_OF_LLADA2 + r"attention\.key_layernorm\.": _LAYER + "self_attn.k_norm.",
    _LAYER_OF_LLADA2 + r"mlp\.gate\.expert_bias": _LAYER + "mlp.gate.e_score_correction_bias",
}
_LLADA2_DIVIDED = {
    "self_attn.query_key_value.weight": [f"self_attn.{name}_proj.weight" for name in ("q", "k", "v")],
}

_LLADA_MOE = Published(
    architecture="qwen3_moe", settings=_llada_moe_settings, facts={"family": "masked"}, mask_token="<|mask|>"
)
_KINDS = {
    "llada": Published(
        architecture="llama", settings=_llada_settings, weights=_LLADA_WEIGHTS, facts={"family": "masked"}
    ),
    "llada2_moe": Published(
        architecture="glm4_moe",
        settings=_llada2_settings,
        weights=_LLADA2_WEIGHTS,
        divided=_LLADA2_DIVIDED,
        facts={"family": "block", "prompt_blocks": "from_prompt"},
        needed={"block": ("block_size",)},
        mask_token="<|mask|>",
    ),
    "Fast_dLLM_Qwen": Published(
        architecture="qwen2",
        settings=_same_settings,
        facts={"family": "block", "prompt_blocks": "from_prompt", "is_shifted": True},
        needed={"block": ("block_size",)},
        mask_token="|<MASK>|",
    ),
    "Dream": Published(architecture="qwen2", settings=_same_settings, facts={"family": "masked", "is_shifted": True}),
    "sdar": Published(
        architecture="qwen3",
        settings=_same_settings,
        facts={"family": "block", "prompt_blocks": "from_prompt"},
        needed={"block": ("block_size",)},
        mask_token="<|MASK|>",
    ),
}
