"""The built-in model: a small pre-norm transformer that trains on two CPU cores and loads like any Hugging Face model.

It takes what the policies need and a stock decoder lacks: any boolean attention mask over any feed order, logits at
chosen positions only, and, for the flow family, a noise level. RMSNorm, rotary positions (2104.09864), SwiGLU
(2002.05202), tied embeddings. Tokens also carry those fed just before them (smeared keys, 2209.11895), and heads start
as copiers (2305.09828; docs/results/warm_starts.md has the losses). The time embedding (2212.09748, one modulation
for all layers) is zero at the start.

The built-in tokenizer is byte-level BPE: it reads any text. Two choices make plans easy to copy for a small model:
digits come in pairs, and an opening quote in a plan is followed by the same token as the word in running text (the
normaliser puts a space after it, the decoder takes it away).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutputWithPast

from dllm_rl.policies.checkpoints import TINY
from dllm_rl.records.canvas import EOS_TOKEN, FILL_TOKEN, MASK_TOKEN, PAD_TOKEN


class TinyConfig(PreTrainedConfig):
    """Sizes of the built-in model; `policy` holds the facts of its family (`dllm_rl.policies.base.PolicyFacts`)."""

    model_type = TINY
    # logits_to_keep may be one index tensor a row, which stock decoders do not take.
    keeps_by_row = True
    # Its attention takes boolean masks, and only such.
    reads_booleans = True

    def __init__(
        self,
        vocab_size: int = 1024,
        hidden_size: int = 128,
        intermediate_size: int = 344,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 4,
        rope_theta: float = 10_000.0,
        has_time: bool = False,
        num_columns: int = 0,
        num_smeared: int = 3,
        policy: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.rope_theta = rope_theta
        self.has_time = has_time
        self.num_columns = num_columns
        self.num_smeared = num_smeared
        self.policy = policy or {}
        super().__init__(**{"tie_word_embeddings": True, "pad_token_id": 0, **kwargs})


class _Block(nn.Module):
    def __init__(self, config: TinyConfig, index: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.index, self.heads = index, config.num_attention_heads
        self.norm_1 = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_2 = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        rotary: tuple[Tensor, Tensor],
        shift: Tensor | None,
        cache: Any,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Hidden states of a layer.

        Args:
            keep: Positions that are computed, (n,) or (b, n); all are read. None: every one.
        """
        y = self.norm_1(x)
        if shift is not None:
            y = y * (1 + shift[0]) + shift[1]
        q, k, v = rearrange(self.qkv(y), "b t (three h d) -> three b h t d", three=3, h=self.heads)
        q, k = _rotate(q, rotary), _rotate(k, rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        if keep is not None:
            x, q, mask = _take(x, keep, 1), _take(q, keep, 2), _take(mask, keep, 2)
        y = _attend(q, k, v, mask)
        x = x + self.out(rearrange(y, "b h t d -> b t (h d)"))
        y = self.norm_2(x)
        if shift is not None:
            y = y * (1 + shift[2]) + shift[3]
        gate, value = self.up(y).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * value)

    def start_as_copier(self) -> None:
        """Mimetic initialisation (2305.09828): queries match keys of equal content, and values pass through."""
        width = self.out.weight.shape[0]
        match = torch.randn(width, width) * width**-0.5
        value = torch.linalg.qr(torch.randn(width, width)).Q
        noise = torch.randn(3 * width, width) * 0.2 * width**-0.5
        self.qkv.weight.copy_(torch.cat([match, match, value]) + noise)
        self.out.weight.copy_(0.5 * value.T)


class _Head(nn.Module):
    """Logits by the embedding's weights, which stay the embedding's: this module owns none."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._embedding = (embedding,)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._embedding[0].weight)


def _take(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """Entries of one dimension: the same for all rows, index (n,), or each row its own, (b, n)."""
    if index.dim() == 1:
        return x.index_select(dim, index)
    shape = [1] * x.dim()
    shape[0], shape[dim] = index.shape
    sizes = [-1 if d in (0, dim) else size for d, size in enumerate(x.shape)]
    return x.gather(dim, index.reshape(shape).expand(sizes))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention. In bfloat16 on a CPU the fused kernel's backward pass costs twice that of plain products."""
    if q.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        # Angles are float32: in a half-precision model they leave queries and keys so.
        return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        q, k, v = q.bfloat16() * q.shape[-1] ** -0.5, k.bfloat16(), v.bfloat16()
        scores = torch.matmul(q, k.transpose(-1, -2)).masked_fill(~mask, -1e4)
        return torch.matmul(scores.softmax(dim=-1), v)


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first half of the dimensions; the other half compares content wherever it stands."""
    cos, sin = rotary
    first, second, content = x.split([cos.shape[-1], cos.shape[-1], x.shape[-1] - 2 * cos.shape[-1]], dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, content], dim=-1)


class TinyForPlans(PreTrainedModel, GenerationMixin):
    """Language-model head over the blocks. Positions are given, never assumed, so that any feed order is possible.

    `generate` is there for `custom_generate=samplers.hf.diffusion_generate`.
    """

    config_class = TinyConfig
    base_model_prefix = "tiny"
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012 (transformers reads this class attribute)

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.embed = nn.Embedding(config.vocab_size, width)
        self.columns = nn.Embedding(config.num_columns + 1, width) if config.num_columns else None
        smeared = config.num_smeared
        self.smear = nn.Linear(smeared * width, width, bias=False) if smeared else None
        self.blocks = nn.ModuleList([_Block(config, index) for index in range(config.num_hidden_layers)])
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = _Head(self.embed)
        self.time = (
            nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, 4 * width)) if config.has_time else None
        )
        self.post_init()
        if not self.embed.weight.is_meta:
            self._start_as_copier()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding, which is the output head too."""
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        """What turns hidden states into logits; it has no weights of its own."""
        return self.head

    @torch.no_grad()
    def _start_as_copier(self) -> None:
        """Begin with heads that find equal content and pass it on, and with a smear that keeps what it saw."""
        for block in self.blocks:
            assert isinstance(block, _Block)
            block.start_as_copier()
        if self.smear is not None:
            eye = torch.eye(self.config.hidden_size)
            scales = [0.6 / shift for shift in range(1, self.config.num_smeared + 1)]
            self.smear.weight.copy_(torch.cat([scale * eye for scale in scales], dim=1))

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02 if module is not self._last_time_layer else 0.0)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.RMSNorm):
            nn.init.ones_(module.weight)

    @property
    def _last_time_layer(self) -> nn.Module | None:
        return None if self.time is None else self.time[-1]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        past_key_values: Any = None,
        logits_to_keep: Tensor | None = None,
        time: Tensor | None = None,
        column_ids: Tensor | None = None,
        previous_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Score tokens.

        Args:
            input_ids: (b, t).
            attention_mask: (b, 1, t, t + cached) bool; True: may be read.
            position_ids: (b, t).
            past_key_values: A `Cache` that is read and added to, as it is, in place.
            logits_to_keep: Positions whose logits are wanted: (n,), or (b, n) for each row its own. Default: all.
            time: (b,), in [0, 1].
            column_ids: (b, t), 1 + canvas column of a token, 0 in the prompt.
            previous_ids: (b, num_smeared), the last tokens that went into past_key_values; or (b, t, num_smeared),
                those before each token, the nearest first, where the feed does not say it.

        Returns:
            Logits (b, n, v).
        """
        x = self.embed(input_ids)
        if self.smear is not None:
            x = x + self._smeared(input_ids, previous_ids)
        if self.columns is not None:
            assert column_ids is not None, "a model with an aligned canvas needs the column of each token"
            x = x + self.columns(column_ids)
        rotary = _angles(position_ids, x.shape[-1] // self.config.num_attention_heads // 2, self.config.rope_theta)
        shift = None
        if self.time is not None:
            assert time is not None, "the flow family's model needs a noise level"
            shift = self.time(_sinusoid(time).to(x.dtype)).unsqueeze(1).chunk(4, dim=-1)
        # Above the last attention only the wanted positions are computed.
        *lower, last = self.blocks
        for block in lower:
            x = block(x, attention_mask, rotary, shift, past_key_values)
        x = last(x, attention_mask, rotary, shift, past_key_values, logits_to_keep)
        logits = self.head(self.norm(x))
        return CausalLMOutputWithPast(logits=logits)

    def _smeared(self, ids: Tensor, previous_ids: Tensor | None) -> Tensor:
        """What the tokens fed just before each token add to it; padding adds nothing."""
        assert self.smear is not None
        count, pad = self.config.num_smeared, self.config.pad_token_id
        if previous_ids is not None and previous_ids.dim() == 3:
            return self.smear((self.embed(previous_ids) * (previous_ids != pad)[..., None]).flatten(2))
        before = F.pad(ids, (count, 0), value=pad) if previous_ids is None else torch.cat([previous_ids, ids], dim=1)
        known = self.embed(before) * (before != pad)[..., None]
        length = ids.shape[1]
        return self.smear(torch.cat([known[:, count - s : count - s + length] for s in range(1, count + 1)], dim=-1))


def _angles(positions: Tensor, width: int, theta: float) -> tuple[Tensor, Tensor]:
    frequency = theta ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width)
    angle = rearrange(positions.float(), "b t -> b 1 t 1") * frequency
    return angle.cos(), angle.sin()


def _sinusoid(time: Tensor) -> Tensor:
    frequency = torch.exp(-math.log(1000.0) * torch.arange(32, device=time.device) / 32)
    angle = 1000.0 * time[:, None].float() * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


_PIECES = r" ?p\d{1,2}\.e\d{1,2}(?!\d)| ?\d{1,2}| ?[A-Za-z]+| ?[^\sA-Za-z\d]|\n|\s+"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer of at most `vocab_size` ids (256 bytes and four special tokens included) from texts."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Replace(Regex(r' "(?=[^\s"])'), ' " ')
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(' " ', ' "')])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD_TOKEN, EOS_TOKEN, MASK_TOKEN, FILL_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD_TOKEN,
        eos_token=EOS_TOKEN,
        mask_token=MASK_TOKEN,
        additional_special_tokens=[FILL_TOKEN],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
