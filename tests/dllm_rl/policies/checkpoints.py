"""Tiny random checkpoints in the format in which families of diffusion language models are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.tiny_policies import tokenizer

# Code that comes with a checkpoint, and must not run unless it was allowed.
OWN_CODE = "raise RuntimeError('code of the checkpoint was run')\n"
NUM_SHARDS = 3


def stock(architecture: str, *, vocab_size: int, is_tied: bool = False, **settings: Any) -> Any:
    """A stock model with random bfloat16 weights that are large enough for distributions to differ."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model(
        architecture,
        vocab_size=vocab_size,
        num_key_value_heads=2,
        tie_word_embeddings=is_tied,
        head_dim=8,
        **sizes | settings,
    )
    config.is_causal = False
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
        for name, bias in model.named_buffers():
            if "correction_bias" in name:
                bias.copy_(0.2 * torch.randn(bias.shape, generator=generator))
    return model.eval()


def write(
    folder: Path,
    model: Any,
    config: dict[str, Any],
    renamed: dict[str, str] | None = None,
    *,
    state: dict[str, torch.Tensor] | None = None,
) -> str:
    """Write weights in shards with their index, and the configuration. renamed: parts of names, in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, state = _as_published(state or model.state_dict()), {}
    for name, value in weights.items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        for part, other in (renamed or {}).items():
            name = name.replace(part, other)
        state[name] = value.clone()
    index: dict[str, str] = {}
    for shard in range(NUM_SHARDS):
        file = f"model-{shard + 1:05}-of-{NUM_SHARDS:05}.safetensors"
        part = dict(list(state.items())[shard::NUM_SHARDS])
        save_file(part, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(config))
    for name in {value.split(".")[0] for value in config.get("auto_map", {}).values()}:
        (folder / f"{name}.py").write_text(OWN_CODE)
    return str(folder)


def _as_published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Experts one by one, as files have them."""
    found = {}
    for name, value in state.items():
        if name.endswith("experts.gate_up_proj"):
            for number, expert in enumerate(value):
                for part, half in zip(("gate_proj", "up_proj"), expert.chunk(2), strict=True):
                    found[name.replace("gate_up_proj", f"{number}.{part}.weight")] = half
        elif name.endswith("experts.down_proj"):
            for number, expert in enumerate(value):
                found[name.replace("down_proj", f"{number}.down_proj.weight")] = expert
        else:
            found[name] = value
    return found


_LLADA_NAMES = {
    "model.embed_tokens.": "model.transformer.wte.",
    "model.norm.": "model.transformer.ln_f.",
    "lm_head.": "model.transformer.ff_out.",
    "model.layers.": "model.transformer.blocks.",
    "self_attn.o_proj": "attn_out",
    "self_attn.": "",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}


def llada(folder: Path, *, is_tied: bool = False, **changes: Any) -> tuple[str, Any]:
    """As GSAI-ML/LLaDA-8B-Instruct is; and the stock model that it equals."""
    words = tokenizer()
    model = stock("llama", vocab_size=len(words) + 2, is_tied=is_tied)
    code = "modeling_llada.LLaDAModelLM"
    config = {
        "architectures": ["LLaDAModelLM"],
        "auto_map": {
            "AutoConfig": "configuration_llada.LLaDAConfig",
            "AutoModel": code,
            "AutoModelForCausalLM": code,
        },
        "model_type": "llada",
        "activation_type": "silu",
        "alibi": False,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": 32,
        "embedding_size": len(words) + 2,
        "eos_token_id": words.eos_token_id,
        "include_bias": False,
        "include_qkv_bias": False,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "mask_token_id": words.mask_token_id,
        "max_sequence_length": 4096,
        "mlp_hidden_size": 48,
        "mlp_ratio": 4,
        "multi_query_attention": None,
        "n_heads": 4,
        "n_kv_heads": 2,
        "n_layers": 2,
        "pad_token_id": words.eos_token_id,
        "rms_norm_eps": 1e-6,
        "rope": True,
        "rope_theta": 10000.0,
        "scale_logits": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.3",
        "vocab_size": len(words) + 2,
        "weight_tying": is_tied,
    }
    path = write(folder, model, config | changes, _LLADA_NAMES)
    without_mask(folder)
    return path, model


def llada_moe(folder: Path) -> tuple[str, Any]:
    """As inclusionAI/LLaDA-MoE-7B-A1B-Instruct is, which has the dense model's type; and its stock model."""
    size = byte_tokenizer(
        folder, ["<|endoftext|>", "<|mask|>"], eos_token="<|endoftext|>", tokenizer_class="Qwen2Tokenizer"
    )
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": False, "moe_intermediate_size": 24}
    model = stock("qwen3_moe", vocab_size=size, mlp_only_layers=[0], decoder_sparse_step=1, **experts)
    config = {
        "architectures": ["LLaDAMoEModelLM"],
        "auto_map": {
            "AutoConfig": "configuration_lladamoe.LLaDAConfig",
            "AutoModelForCausalLM": "modeling_lladamoe.LLaDAMoEModelLM",
        },
        "model_type": "llada",
        "attention_bias": False,
        "clip_qkv": None,
        "dense_intermediate_size": 48,
        "eos_token_id": size - 2,
        "expert_intermediate_size": 24,
        "hidden_act": "silu",
        "hidden_size": 32,
        "max_position_embeddings": 4096,
        "moe_layer_freq": [0, 1],
        "moe_router_enable_expert_bias": False,
        "moe_router_score_function": "softmax",
        "num_attention_heads": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": size - 2,
        "partial_rotary_factor": 1,
        "qk_layernorm": True,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 10000,
        "shared_expert_intermediate_size": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": size,
    }
    return write(folder, model, config), model


_LLADA2_NAMES = {
    "model.embed_tokens.": "model.word_embeddings.",
    "self_attn.o_proj": "attention.dense",
    "self_attn.q_norm": "attention.query_layernorm",
    "self_attn.k_norm": "attention.key_layernorm",
    "self_attn.": "attention.",
    "mlp.gate.e_score_correction_bias": "mlp.gate.expert_bias",
}


def llada2(folder: Path, **changes: Any) -> tuple[str, Any]:
    """As inclusionAI/LLaDA2.0-mini is: one matrix for queries, keys and values; and its stock model."""
    size = byte_tokenizer(folder, ["<|endoftext|>", "<|mask|>"], eos_token="<|endoftext|>")
    # Its tokenizer comes as one file.
    Qwen2Tokenizer.from_pretrained(folder).save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    experts = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 24}
    routing = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5, "norm_topk_prob": True}
    rope = {"rope_type": "default", "rope_theta": 600000, "partial_rotary_factor": 0.5}
    model = stock(
        "glm4_moe",
        vocab_size=size,
        first_k_dense_replace=1,
        use_qk_norm=True,
        rope_parameters=rope,
        rms_norm_eps=1e-6,
        num_nextn_predict_layers=0,
        **experts,
        **routing,
    )
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith(("k_proj.weight", "v_proj.weight")):
            continue
        if name.endswith("self_attn.q_proj.weight"):
            parts = [model.state_dict()[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            name, value = name.replace("q_proj", "query_key_value"), torch.cat(parts)
        state[name] = value
    config = {
        "architectures": ["LLaDA2MoeModelLM"],
        "auto_map": {
            "AutoConfig": "configuration_llada2_moe.LLaDA2MoeConfig",
            "AutoModelForCausalLM": "modeling_llada2_moe.LLaDA2MoeModelLM",
        },
        "model_type": "llada2_moe",
        "eos_token_id": size - 2,
        "first_k_dense_replace": 1,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": 24,
        "moe_router_enable_expert_bias": True,
        "n_group": 4,
        "norm_head": False,
        "norm_topk_prob": True,
        "num_attention_heads": 4,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "num_shared_experts": 1,
        "pad_token_id": size - 2,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 600000,
        "routed_scaling_factor": 2.5,
        "score_function": "sigmoid",
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "topk_group": 2,
        "torch_dtype": "bfloat16",
        "use_bias": False,
        "use_qk_norm": True,
        "use_qkv_bias": False,
        "use_sliding_window": False,
        "vocab_size": size,
    }
    return write(folder, model, config | changes, _LLADA2_NAMES, state=state), model


def fast_dllm(folder: Path) -> tuple[str, Any]:
    """As Efficient-Large-Model/Fast_dLLM_v2_1.5B is; and the stock model that it equals."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "|<MASK>|"]
    size = byte_tokenizer(
        folder, special, eos_token="<|im_end|>", pad_token="<|endoftext|>", tokenizer_class="Qwen2Tokenizer"
    )
    model = stock("qwen2", vocab_size=size, is_tied=True)
    config = {
        **_plain(model),
        "architectures": ["Fast_dLLM_QwenForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration.Fast_dLLM_QwenConfig",
            "AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM",
        },
        "bd_size": 4,
        "model_type": "Fast_dLLM_Qwen",
        "eos_token_id": size - 2,
    }
    return write(folder, model, config), model


def refusion(folder: Path) -> tuple[str, Any]:
    """As GSAI-ML/ReFusion is: a Qwen3 whose configuration states MASK; and the stock model that it equals."""
    words = tokenizer()
    without_mask(folder)
    model = stock("qwen3", vocab_size=len(words))
    config = {
        **_plain(model),
        "architectures": ["Qwen3ForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_refusion.Qwen3ForCausalLM"},
        "model_type": "qwen3",
        "mask_token_id": words.mask_token_id,
        "eos_token_id": words.eos_token_id,
    }
    return write(folder, model, config), model


def without_mask(folder: Path) -> None:
    """Write the tiny tokenizer, without saying which of its tokens is MASK."""
    tokenizer().save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["mask_token"]
    file.write_text(json.dumps(settings))


CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


def byte_tokenizer(folder: Path, special: list[str], **settings: Any) -> int:
    """Files of a slow tokenizer of Qwen2's kind, every byte a token; returns its number of ids."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {letter: number for number, letter in enumerate(bytes_to_unicode().values())}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    added = {str(len(vocab) + number): {"content": token, "special": True} for number, token in enumerate(special)}
    file = {"added_tokens_decoder": added, "chat_template": CHAT, "model_max_length": 4096, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(file))
    return len(vocab) + len(special)


def dream(folder: Path) -> tuple[str, Any]:
    """As Dream-org/Dream-v0-Instruct-7B is, whose tokenizer comes as code; and the stock model that it equals."""
    size = byte_tokenizer(
        folder,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>"],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        mask_token="<|mask|>",
        tokenizer_class="DreamTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
    )
    (folder / "tokenization_dream.py").write_text(OWN_CODE)
    model = stock("qwen2", vocab_size=size + 4)
    config = {
        **_plain(model),
        "architectures": ["DreamModel"],
        "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
        "model_type": "Dream",
        "mask_token_id": size - 1,
        "eos_token_id": size - 4,
        "pad_token_id": size - 4,
    }
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": size - 4, "pad_token_id": size - 4}))
    return write(folder, model, config), model


def sdar(folder: Path, **changes: Any) -> tuple[str, Any]:
    """As JetLM/SDAR-4B-Chat is; and the stock model that it equals."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|MASK|>"]
    size = byte_tokenizer(
        folder, special, eos_token="<|im_end|>", pad_token="<|endoftext|>", tokenizer_class="Qwen2Tokenizer"
    )
    model = stock("qwen3", vocab_size=size)
    code = "modeling_sdar.SDARForCausalLM"
    config = {
        **_plain(model),
        "architectures": ["SDARForCausalLM"],
        "attn_implementation": "flex_attention",
        "auto_map": {"AutoConfig": "configuration_sdar.SDARConfig", "AutoModelForCausalLM": code},
        "model_type": "sdar",
        "eos_token_id": size - 4,
        "fuse_cross_entropy": True,
    }
    ends = [size - 2, size - 4]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "pad_token_id": size - 4}))
    return write(folder, model, config | changes), model


def a2d(folder: Path, *, is_tied: bool = True) -> tuple[str, Any]:
    """As dllm-hub/Qwen3-0.6B-diffusion-mdlm is, which is tied; and the stock model that it equals."""
    words = tokenizer()
    words.save_pretrained(folder)
    model = stock("qwen3", vocab_size=len(words), is_tied=is_tied)
    config = {
        **_plain(model),
        "architectures": ["A2DQwen3LMHeadModel"],
        "model_type": "a2d-qwen3",
        "eos_token_id": words.eos_token_id,
    }
    return write(folder, model, config), model


def _plain(model: Any) -> dict[str, Any]:
    """The settings as published files have them: rope_theta by itself."""
    settings = model.config.to_dict()
    theta = settings.pop("rope_parameters")["rope_theta"]
    del settings["layer_types"]
    return {**settings, "rope_theta": theta, "rope_scaling": None, "torch_dtype": "bfloat16"}
