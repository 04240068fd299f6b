"""Samplers of public code on a policy's model: the text of a few functions of a checkout, run with stand-ins.

The public loop is theirs. The model is the policy's own, under the attention that the public model code has: a stock
decoder with the same weights, since most of that code needs older versions of transformers or a GPU.

Legend: b rows, t fed tokens, s keys, v vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import DynamicCache

from benchmarks.public_code import functions
from dllm_rl.policies.attention import additive
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a public sampler is asked to write.

    Attributes:
        prompts: Padded on the left.
        settings: Of the public function, by its names.
    """

    policy: BasePolicy
    prompts: Prompts
    settings: dict[str, Any]

    @property
    def length(self) -> int:
        """Columns of the canvas."""
        return self.policy.facts.canvas_length

    @property
    def tokenizer(self) -> Any:
        """What samplers ask a tokenizer."""
        return SimpleNamespace(
            mask_token_id=self.policy.mask_id,
            eos_token_id=self.policy.canvas.eos_id,
            pad_token_id=self.policy.canvas.pad_id,
            bos_token_id=None,
        )


class Torch:
    """PyTorch, where a draw takes the likeliest; for code that has no greedy setting."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def multinomial(probs: Tensor, num_samples: int) -> Tensor:
        """The likeliest of each row."""
        return probs.argmax(dim=-1, keepdim=True)


class Keys(DynamicCache):
    """Keys and values that are cut, read and joined as older versions of transformers did."""

    def crop(self, max_length: int) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Keep the first positions."""
        beyond = self.get_seq_length() - max_length
        if beyond > 0:
            super().crop(-beyond)

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        return self.key_cache[layer], self.value_cache[layer]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return iter(list(zip(self.key_cache, self.value_cache, strict=True)))

    @property
    def key_cache(self) -> list[Any]:
        """Keys of each layer."""
        layers: list[Any] = self.layers
        return [layer.keys for layer in layers]

    @property
    def value_cache(self) -> list[Any]:
        """Values of each layer."""
        layers: list[Any] = self.layers
        return [layer.values for layer in layers]

    def full_update(self, new: Any) -> None:
        """Add keys and values of each layer."""
        for number, (key, value) in enumerate(new):
            self.update(key, value, number)

    def batch_select_minibatch(self, count: int) -> None:
        """Keep the first rows."""
        self.batch_select_indices(torch.arange(count))


class Model:
    """The policy's model, asked with a mask of what each token reads."""

    device = torch.device("cpu")

    def __init__(self, policy: BasePolicy) -> None:
        self.model: Any = policy.model

    def eval(self) -> None:
        """Nothing to do."""

    def read(
        self, ids: Int[Tensor, "b t"], allowed: Bool[Tensor, "b 1 t s"], positions: Int[Tensor, "b t"], keys: Any = None
    ) -> Any:
        """Logits of the tokens, and the keys with theirs added."""
        mask = additive(allowed, torch.float32).expand(len(ids), -1, -1, -1)
        known = {} if keys is None else {"past_key_values": keys}
        output = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=keys is not None, **known
        )
        return SimpleNamespace(logits=output.logits, past_key_values=keys)


def _everything(ids: Tensor, past: int = 0) -> Tensor:
    return torch.ones(1, 1, ids.shape[1], past + ids.shape[1], dtype=torch.bool)


def _from(start: int, ids: Tensor) -> Tensor:
    return torch.arange(start, start + ids.shape[1]).expand(len(ids), -1)


class Bidirectional(Model):
    """LLaDA, Dream and MDLM: every token reads every other that is not padding."""

    def __call__(self, ids: Tensor, mask: Any = None, positions: Any = None, *, attention_mask: Any = None) -> Any:
        """Logits; the mask is none, `full`, of tokens, or of pairs of tokens."""
        mask = mask if attention_mask is None else attention_mask
        if mask is None or isinstance(mask, str):
            return self.read(ids, _everything(ids), _from(0, ids))
        if mask.dim() == 2:
            positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
            mask = mask[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
        itself = torch.eye(ids.shape[1], dtype=torch.bool)
        return self.read(ids, mask.bool() | itself, _from(0, ids) if positions is None else positions)


class Stale(Bidirectional):
    """Fast-dLLM's LLaDA: keys and values of some tokens are kept as they were."""

    def __call__(self, ids: Tensor, past_key_values: Any = None, use_cache: bool = False, **more: Any) -> Any:
        """Logits, where some tokens are read from keys; with `replace_position` these stand on both sides."""
        if not use_cache:
            return super().__call__(ids)
        keys, replaced = Keys(), more.get("replace_position")
        layers: list[Any] = past_key_values or []
        start = layers[0][0].shape[2] if layers else 0
        if replaced is not None:
            start = int(replaced[0].nonzero()[0])
        for number, layer in enumerate(layers):
            kept = [x if replaced is None else x[:, :, ~replaced[0]] for x in layer]
            keys.update(kept[0], kept[1], number)
        return self.read(ids, _everything(ids, keys.get_seq_length()), _from(start, ids), keys)


class Blocks(Model):
    """SDAR, LLaDA2 and BD3-LM, which give the mask; keys are kept where the caller says so."""

    def __call__(self, ids: Tensor, attention_mask: Any, position_ids: Any, **more: Any) -> Any:
        """Logits; the mask is of truths, of ones and zeros, or of what is added to scores."""
        allowed = attention_mask if attention_mask.dim() == 4 else attention_mask[:, None]
        if (allowed <= 0).all():
            allowed = allowed == 0
        allowed = allowed.bool()
        itself = torch.eye(ids.shape[1], allowed.shape[-1], dtype=torch.bool).roll(allowed.shape[-1] - ids.shape[1], 1)
        keys: Any = more.get("past_key_values")
        if keys is None and more.get("use_cache"):
            keys = Keys()
        length = 0 if keys is None else keys.get_seq_length()
        output = self.read(ids, allowed | itself, position_ids, keys)
        if keys is not None and more.get("store_kv") is False:
            keys.crop(length)
        return output

    forward = __call__


class Causal(Model):
    """ReFusion: every token reads those fed before it. Keys are always added to, as its version of Qwen3 does."""

    def __call__(self, input_ids: Tensor, position_ids: Tensor, past_key_values: Any, use_cache: bool) -> Any:
        """Logits and keys."""
        keys = Keys() if past_key_values is None else past_key_values
        allowed = _everything(input_ids, keys.get_seq_length()).tril(keys.get_seq_length())
        return self.read(input_ids, allowed, position_ids, keys)


class Turns(Model):
    """Fast-dLLM v2: blocks counted from the first token, a block at a time but for the prompt."""

    def forward(self, input_ids: Tensor, *, past_key_values: Any = None, block_size: int = 0, **more: Any) -> Any:
        """Logits and keys, which are added to where the caller says so."""
        keys = Keys() if past_key_values is None else past_key_values
        start = keys.get_seq_length()
        allowed = _everything(input_ids, start)
        if not start and block_size:
            block = torch.arange(input_ids.shape[1]) // block_size
            allowed = (block[None, :] <= block[:, None])[None, None]
        output = self.read(input_ids, allowed, _from(start, input_ids), keys)
        if not more["update_past_key_values"]:
            keys.crop(start)
        return output

    @staticmethod
    def sample_with_top_p(logits: Tensor, top_p: float, temperature: float) -> tuple[Tensor, Tensor]:
        """The likeliest, and all probabilities, as the hub's code has it at temperature 0."""
        return logits.argmax(dim=-1), logits.softmax(dim=-1)


KNOWN: dict[str, Any] = {"torch": torch, "F": F, "np": np, "math": math, "copy": copy}


def llada(path: Path, asked: Asked) -> Tensor:
    """LLaDA's generate."""
    named = functions(path, ["generate", "add_gumbel_noise", "get_num_transfer_tokens"], KNOWN)
    is_padded = not asked.prompts.mask.all()
    given = {"gen_length": asked.length, "mask_id": asked.policy.mask_id, **asked.settings}
    if is_padded or "cfg_scale" in given:
        given["attention_mask"] = asked.prompts.mask.long()
    return named["generate"](Bidirectional(asked.policy), asked.prompts.ids, **given)


def fast_dllm(path: Path, asked: Asked) -> Tensor:
    """Fast-dLLM's loops for LLaDA, without a cache and with both kinds."""
    loop = asked.settings["loop"]
    names = [loop, "add_gumbel_noise", "get_num_transfer_tokens", "get_transfer_index"]
    given = {key: value for key, value in asked.settings.items() if key != "loop"}
    run = functions(path, names, KNOWN)[loop]
    written, _ = run(
        Stale(asked.policy), asked.prompts.ids, gen_length=asked.length, mask_id=asked.policy.mask_id, **given
    )
    return written


def dream(path: Path, asked: Asked) -> Tensor:
    """Dream's _sample, whose rows are padded to one length."""
    named = functions(path, ["_sample", "sample_tokens"], KNOWN)
    width = asked.prompts.ids.shape[1]
    config = {"eps": 1e-3, "temperature": 0.0, "top_p": None, "top_k": None, "alg_temp": None, "return_dict": False}
    config |= {"output_history": False, "return_dict_in_generate": False}
    settings = SimpleNamespace(
        **config, **asked.settings, max_length=width + asked.length, mask_token_id=asked.policy.mask_id
    )
    return named["_sample"](
        Bidirectional(asked.policy),
        asked.prompts.ids,
        asked.prompts.mask.long(),
        settings,
        lambda step, x, logits: x,
        lambda step, x, logits: logits,
    )


def _reverse_mask_prob(s: float, t: float) -> float:
    """Of dllm's linear schedule, in its numbers."""
    now, before = (1 - (1 - torch.tensor(level)) for level in (s, t))
    return float(now / before)


def _dllm(path: Path, asked: Asked, names: list[str], model: Model) -> Tensor:
    """A sampler of dllm, whose helpers stand in another file."""
    helpers = functions(path.parent / "utils.py", ["get_num_transfer_tokens", "add_gumbel_noise"], KNOWN)
    sample = functions(path, names, {**KNOWN, **helpers})["sample"]
    config = {"temperature": 0.0, "remasking": "low_confidence", "cfg_scale": 0.0, "return_dict": False}
    config |= {"stochastic_transfer": False, "cfg_keep_tokens": None, "right_shift_logits": False, "max_length": None}
    config |= {"suppress_tokens": None, "begin_suppress_tokens": None, "steps_per_block": None}
    settings = SimpleNamespace(**config | {"max_new_tokens": asked.length} | asked.settings)
    linear = SimpleNamespace(reverse_mask_prob=_reverse_mask_prob)
    sampler = SimpleNamespace(model=model, tokenizer=asked.tokenizer, scheduler=linear)
    rows = [ids[mask].tolist() for ids, mask in zip(asked.prompts.ids, asked.prompts.mask, strict=True)]
    return sample(sampler, rows, settings)


def mdlm(path: Path, asked: Asked) -> Tensor:
    """The masked sampler of dllm."""
    return _dllm(path, asked, ["sample"], Bidirectional(asked.policy))


def bd3lm(path: Path, asked: Asked) -> Tensor:
    """The block sampler of dllm."""
    return _dllm(path, asked, ["sample", "_prepare_for_sampling", "_diffusion_step_block"], Blocks(asked.policy))


def sdar(path: Path, asked: Asked) -> Tensor:
    """SDAR's block_diffusion_generate, whose draws take the likeliest."""
    names = ["block_diffusion_generate", "sample_with_temperature_topk_topp", "get_num_transfer_tokens"]
    named = functions(path, names, {**KNOWN, "torch": Torch(), "DynamicCache": Keys})
    given = {"gen_length": asked.length, "mask_id": asked.policy.mask_id, **asked.settings}
    return named["block_diffusion_generate"](Blocks(asked.policy), {"input_ids": asked.prompts.ids}, **given)


def llada2(path: Path, asked: Asked) -> Tensor:
    """LLaDA2's generate, which returns what it wrote alone."""
    helpers = ["_get_num_transfer_tokens", "_sample_with_temperature_topk_topp"]
    named = functions(path, ["generate", *helpers], KNOWN)
    model: Any = Blocks(asked.policy)
    model._get_num_transfer_tokens = named[helpers[0]]
    model._sample_with_temperature_topk_topp = lambda *args, **more: named[helpers[1]](model, *args, **more)
    given = {"gen_length": asked.length, "mask_id": asked.policy.mask_id, "eos_id": asked.policy.canvas.eos_id}
    written = named["generate"](model, asked.prompts.ids, temperature=0.0, **given | asked.settings)
    return torch.cat([asked.prompts.ids, written], dim=1)


def fast_dllm_v2(path: Path, asked: Asked) -> Tensor:
    """Fast-dLLM v2's batch_sample on one row: whole blocks, which may reach beyond the canvas."""
    sample: Callable[..., dict[int, Tensor]] = functions(path, ["batch_sample"], KNOWN)["batch_sample"]
    width = asked.prompts.ids.shape[1]
    size = asked.settings["block_size"]
    given = {"max_new_tokens": -(-asked.length // size) * size, "min_len": width, "seq_len": torch.tensor([width])}
    given |= {"mask_id": asked.policy.mask_id, "stop_token": asked.policy.canvas.eos_id, **asked.settings}
    return sample(Turns(asked.policy), asked.prompts.ids, asked.tokenizer, **given)[0][None]


def refusion(path: Path, asked: Asked) -> Tensor:
    """ReFusion's generate_refusion, whose tokens are sorted by position in the end."""
    named = functions(path, ["generate_refusion", "add_gumbel_noise"], KNOWN)
    given = {"gen_length": asked.length, "mask_id": asked.policy.mask_id, **asked.settings}
    written, _ = named["generate_refusion"](Causal(asked.policy), asked.tokenizer, asked.prompts.ids, **given)
    return written
