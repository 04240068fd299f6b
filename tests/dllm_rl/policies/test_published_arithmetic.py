"""Mixtures of experts as their papers and code define them, computed plainly from the published files alone: the stock
models that they are loaded as give the same logits.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file

from dllm_rl.load_options import LoadOptions
from dllm_rl.policies.loading import load_policy
from tests.dllm_rl.policies import checkpoints

TOKENS = torch.tensor([5, 17, 200, 3, 3, 90, 41, 7])
FACTS = {"max_prompt": 200, "canvas_length": 96}


class Plain:
    """One row, every position reads every other; weights by their published names."""

    def __init__(self, path: str) -> None:
        self.config = json.loads((Path(path) / "config.json").read_text())
        self.weights = {}
        for file in Path(path).glob("*.safetensors"):
            self.weights |= {name: value.float() for name, value in load_file(file).items()}
        self.heads, self.kv = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        self.dim = self.config["hidden_size"] // self.heads

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T

    def norm(self, x, name):
        return (
            x * (x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]).rsqrt() * self.weights[f"{name}.weight"]
        )

    def rotate(self, x):
        size = int(self.dim * self.config["partial_rotary_factor"])
        angle = torch.arange(len(x))[:, None] * self.config["rope_theta"] ** (-torch.arange(0, size, 2) / size)
        cos, sin = (torch.cat([part, part], dim=-1)[:, None] for part in (angle.cos(), angle.sin()))
        turned, rest = x[..., :size], x[..., size:]
        first, second = turned.chunk(2, dim=-1)
        return torch.cat([turned * cos + torch.cat([-second, first], dim=-1) * sin, rest], dim=-1)

    def attention(self, query, key, value):
        key, value = (x.repeat_interleave(self.heads // self.kv, dim=1) for x in (key, value))
        weight = torch.einsum("qhd,khd->hqk", query, key) / math.sqrt(self.dim)
        return torch.einsum("hqk,khd->qhd", weight.softmax(-1), value).flatten(1)

    def mlp(self, x, name):
        gate = torch.nn.functional.silu(self.linear(x, f"{name}.gate_proj"))
        return self.linear(gate * self.linear(x, f"{name}.up_proj"), f"{name}.down_proj")

    def experts(self, x, name, chosen, weight):
        rows = [
            sum(w * self.mlp(row, f"{name}.experts.{expert}") for expert, w in zip(own.tolist(), of, strict=True))
            for row, own, of in zip(x, chosen, weight, strict=True)
        ]
        return torch.stack(rows)


class LLaDA2(Plain):
    """Groups of experts by the sum of their two best; sigmoid scores with a bias that only chooses; a shared expert."""

    def logits(self):
        c, x = self.config, self.weights["model.word_embeddings.weight"][TOKENS]
        for layer in range(c["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            qkv = self.linear(self.norm(x, f"{name}.input_layernorm"), f"{name}.attention.query_key_value")
            query, key, value = qkv.view(len(x), -1, self.dim).split([self.heads, self.kv, self.kv], dim=1)
            query = self.rotate(self.norm(query, f"{name}.attention.query_layernorm"))
            key = self.rotate(self.norm(key, f"{name}.attention.key_layernorm"))
            x = x + self.linear(self.attention(query, key, value), f"{name}.attention.dense")
            h = self.norm(x, f"{name}.post_attention_layernorm")
            x = x + (
                self.mlp(h, f"{name}.mlp") if layer < c["first_k_dense_replace"] else self.mixture(h, f"{name}.mlp")
            )
        return self.linear(self.norm(x, "model.norm"), "lm_head")

    def mixture(self, h, name):
        c = self.config
        score = self.linear(h, f"{name}.gate").sigmoid()
        wanted = (score + self.weights[f"{name}.gate.expert_bias"]).view(len(h), c["n_group"], -1)
        best = wanted.topk(2, dim=-1).values.sum(-1).topk(c["topk_group"], dim=-1).indices
        is_kept = torch.zeros(len(h), c["n_group"], dtype=torch.bool).scatter(1, best, True)
        chosen = wanted.masked_fill(~is_kept[..., None], -torch.inf).flatten(1).topk(c["num_experts_per_tok"]).indices
        weight = score.gather(1, chosen)
        weight = weight / weight.sum(-1, keepdim=True) * c["routed_scaling_factor"]
        return self.experts(h, name, chosen, weight) + self.mlp(h, f"{name}.shared_experts")


class LLaDAMoE(Plain):
    """The probabilities of the chosen experts, as they are; normalised queries and keys."""

    def logits(self):
        c, x = self.config, self.weights["model.embed_tokens.weight"][TOKENS]
        for layer, is_sparse in enumerate(c["moe_layer_freq"]):
            name = f"model.layers.{layer}"
            h = self.norm(x, f"{name}.input_layernorm")
            query, key, value = (
                self.linear(h, f"{name}.self_attn.{part}_proj").view(len(x), -1, self.dim) for part in ("q", "k", "v")
            )
            query = self.rotate(self.norm(query, f"{name}.self_attn.q_norm"))
            key = self.rotate(self.norm(key, f"{name}.self_attn.k_norm"))
            x = x + self.linear(self.attention(query, key, value), f"{name}.self_attn.o_proj")
            h = self.norm(x, f"{name}.post_attention_layernorm")
            if is_sparse:
                weight, chosen = self.linear(h, f"{name}.mlp.gate").softmax(-1).topk(c["num_experts_per_tok"])
                x = x + self.experts(h, f"{name}.mlp", chosen, weight)
            else:
                x = x + self.mlp(h, f"{name}.mlp")
        return self.linear(self.norm(x, "model.norm"), "lm_head")


def stock_logits(path: str, **facts):
    model = load_policy(path, facts=FACTS | facts, options=LoadOptions(dtype="float32")).model
    mask = torch.zeros(1, 1, len(TOKENS), len(TOKENS))
    with torch.no_grad():
        return model(input_ids=TOKENS[None], attention_mask=mask).logits[0]


def test_llada2_is_what_its_files_say(tmp_path):
    path, _ = checkpoints.llada2(tmp_path)
    torch.testing.assert_close(stock_logits(path, block_size=4), LLaDA2(path).logits(), atol=1e-4, rtol=1e-4)


def test_llada_moe_is_what_its_files_say(tmp_path):
    path, _ = checkpoints.llada_moe(tmp_path)
    torch.testing.assert_close(stock_logits(path), LLaDAMoE(path).logits(), atol=1e-4, rtol=1e-4)
