"""The autoregressive family: the control row, where every likelihood is exact and every surrogate coincides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from dllm_rl.constraint import Constraint
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.terms import Attention, last_ids
from dllm_rl.registry import register
from dllm_rl.types import Family, Prompts, Rollouts, Views


@dataclass(slots=True, kw_only=True)
class DecodingState:
    """Keys and values of everything read so far, and the logits of the next column. Changed in place by `advance`."""

    cache: Any
    visible: Bool[Tensor, "b t"]
    num_real: Int[Tensor, " b"]
    fed: Int[Tensor, "b t"]
    logits: Float[Tensor, "b v"]
    column: int = 0


@register("policy", "autoregressive")
class AutoregressivePolicy(BasePolicy):
    """Writes left to right; column i is read at position i - 1 under causal attention."""

    family: ClassVar[Family] = "autoregressive"
    attention: ClassVar[Attention] = "causal"

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """PAD is banned too, where it is not EOS: a row ends with EOS."""
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return super().banned_ids if pad == eos else (*super().banned_ids, pad)

    def score(self, *args: Any, is_shifted: bool | None = None, **kwargs: Any) -> Float[Tensor, "b c v"]:
        """As `BasePolicy.score`; always shifted, whatever reading a view asks for: here they are all the same."""
        return super().score(*args, is_shifted=True, **kwargs)

    def constrained_terms(
        self, logits: Float[Tensor, "b l v"], rollouts: Rollouts, views: Views, index: int, constraint: Constraint
    ) -> Float[Tensor, "b l"]:
        """Each token among those that the grammar allows after the tokens before it."""
        return constraint.next_token_log_probs(logits, views.tokens[index])

    def start(self, prompts: Prompts) -> DecodingState:
        """Read the prompts once; the state holds the logits of column 0."""
        positions = (prompts.mask.long().cumsum(dim=1) - 1).clamp(min=0)
        length = prompts.ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = (prompts.mask[:, None, None, :] & causal) | torch.eye(length, dtype=torch.bool)
        cache = DynamicCache()
        state = DecodingState(
            cache=cache,
            visible=prompts.mask,
            num_real=prompts.mask.sum(dim=1),
            fed=prompts.ids,
            logits=torch.empty(0),
            column=0,
        )
        state.logits = self._forward(prompts.ids, mask, positions, torch.zeros_like(prompts.ids), cache)
        return state

    def advance(self, state: DecodingState, tokens: Int[Tensor, " b"]) -> None:
        """Append one token to every row; the state then holds the logits of the next column."""
        state.visible = torch.cat([state.visible, torch.ones_like(tokens, dtype=torch.bool)[:, None]], dim=1)
        positions = (state.num_real + state.column)[:, None]
        columns = torch.full_like(positions, state.column + 1)
        mask = state.visible[:, None, None, :]
        state.logits = self._forward(tokens[:, None], mask, positions, columns, state.cache, state.fed)
        state.fed = torch.cat([state.fed, tokens[:, None]], dim=1)
        state.column += 1

    def keep_rows(self, state: DecodingState, index: Int[Tensor, " n"]) -> None:
        """Drop the rows that have ended."""
        state.cache.batch_select_indices(index.to(self.device))
        state.visible, state.num_real = state.visible[index], state.num_real[index]
        state.logits, state.fed = state.logits[index], state.fed[index]

    def _forward(
        self,
        ids: Tensor,
        mask: Tensor,
        positions: Tensor,
        columns: Tensor,
        cache: Any,
        fed: Tensor | None = None,
    ) -> Float[Tensor, "b v"]:
        config: Any = self.model.config
        extra: dict[str, Any] = {"column_ids": columns} if getattr(config, "num_columns", 0) else {}
        if fed is not None and getattr(config, "num_smeared", 0):
            extra["previous_ids"] = last_ids(fed, config.num_smeared, self.canvas.pad_id)
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "logits_to_keep": torch.tensor([ids.shape[1] - 1]),
            **extra,
        }
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        output = self.model(**moved, past_key_values=cache, use_cache=True)
        logits = output.logits[:, -1].float()
        return logits.masked_fill(self._banned.to(logits.device), -torch.inf).to(ids.device)
