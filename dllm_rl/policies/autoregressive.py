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
    """Keys and values of everything read so far, and each row's law of its next column. Changed in place by `advance`.

    Rows go on at their own pace: what is fed to one of them more than to another is filled up with PAD that nobody
    reads. visible: which of the cached positions may be read. num_real: prompt tokens. column: canvas columns fed so
    far. recent: the last tokens fed, the latest at the end.
    """

    cache: Any
    visible: Bool[Tensor, "b t"]
    num_real: Int[Tensor, " b"]
    column: Int[Tensor, " b"]
    recent: Int[Tensor, "b s"]
    logits: Float[Tensor, "b v"]


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

    def start(
        self, prompts: Prompts, tokens: Int[Tensor, "b n"] | None = None, is_real: Bool[Tensor, "b n"] | None = None
    ) -> DecodingState:
        """Read the prompts once; the state holds the law of column 0, or of what follows `tokens`.

        tokens: what the canvases begin with; is_real: which of them, each row's first ones (None: all).
        """
        ids, mask, column = prompts.ids, prompts.mask, torch.zeros_like(prompts.ids)
        if tokens is not None and tokens.numel():
            ids, mask, column = _followed_by(prompts, tokens, is_real, self.canvas.pad_id)
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        state = DecodingState(
            cache=DynamicCache(),
            visible=mask,
            num_real=prompts.mask.sum(dim=1),
            column=column.amax(dim=1),
            recent=last_ids(ids, self._num_smeared, self.canvas.pad_id),
            logits=torch.empty(0),
        )
        reads = (mask[:, None, None, :] & causal) | torch.eye(length, dtype=torch.bool)
        positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
        state.logits = self._forward(ids, reads, positions, column, state.cache)
        return state

    def advance(
        self, state: DecodingState, tokens: Int[Tensor, "b n"], is_real: Bool[Tensor, "b n"] | None = None
    ) -> None:
        """Append tokens to every row in one forward; the state then holds the law of what follows them.

        is_real: which of them, each row's last ones and at least one (None: all). What is not real is never read.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if is_real is None else is_real
        count = tokens.shape[1]
        before = state.visible[:, None, None, :].expand(-1, 1, count, -1)
        own = (real[:, None, None, :] & torch.ones(count, count, dtype=torch.bool).tril()) | torch.eye(
            count, dtype=torch.bool
        )
        column = (state.column[:, None] + real.long().cumsum(dim=1)) * real
        positions = (state.num_real[:, None] + column - 1).clamp(min=0)
        line = _joined(state.recent, tokens, real, self.canvas.pad_id)
        reads = torch.cat([before, own], dim=-1)
        state.logits = self._forward(tokens, reads, positions, column, state.cache, line)
        state.visible = torch.cat([state.visible, real], dim=1)
        state.column = state.column + real.sum(dim=1)
        state.recent = last_ids(line, self._num_smeared, self.canvas.pad_id)

    def keep_rows(self, state: DecodingState, index: Int[Tensor, " n"]) -> None:
        """Drop the rows that have ended."""
        state.cache.batch_select_indices(index.to(self.device))
        state.visible, state.num_real, state.column = state.visible[index], state.num_real[index], state.column[index]
        state.logits, state.recent = state.logits[index], state.recent[index]

    @property
    def _num_smeared(self) -> int:
        return getattr(self.model.config, "num_smeared", 0)

    def _forward(
        self,
        ids: Int[Tensor, "b n"],
        reads: Bool[Tensor, "b 1 n t"],
        positions: Int[Tensor, "b n"],
        columns: Int[Tensor, "b n"],
        cache: Any,
        line: Int[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b v"]:
        """Law after the last of these tokens. line: what was fed before them, and they; None: nothing was."""
        config: Any = self.model.config
        extra: dict[str, Any] = {"column_ids": columns} if getattr(config, "num_columns", 0) else {}
        if line is not None and self._num_smeared:
            extra["previous_ids"] = _previous(line, ids.shape[1], self._num_smeared)
        inputs = {
            "input_ids": ids,
            "attention_mask": reads,
            "position_ids": positions,
            "logits_to_keep": torch.tensor([ids.shape[1] - 1]),
            **extra,
        }
        moved = {name: value.to(self.device) for name, value in inputs.items()}
        output = self.model(**moved, **self.kept(cache))
        logits = output.logits[:, -1].float()
        return logits.masked_fill(self._banned.to(logits.device), -torch.inf).to(ids.device)


def _followed_by(
    prompts: Prompts, tokens: Int[Tensor, "b n"], is_real: Bool[Tensor, "b n"] | None, pad_id: int
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Prompts with these tokens behind them, padded on the left as little as need be; which are real; their columns."""
    real = torch.ones_like(tokens, dtype=torch.bool) if is_real is None else is_real
    ids, mask = torch.cat([prompts.ids, tokens], dim=1), torch.cat([prompts.mask, real], dim=1)
    column = torch.cat([torch.zeros_like(prompts.ids), real.long().cumsum(dim=1)], dim=1)
    order = mask.long().argsort(dim=1, stable=True)[:, -int(mask.sum(dim=1).max()) :]
    ids, mask, column = ids.gather(1, order), mask.gather(1, order), column.gather(1, order)
    return torch.where(mask, ids, pad_id), mask, column * mask


def _joined(
    recent: Int[Tensor, "b s"], tokens: Int[Tensor, "b n"], is_real: Bool[Tensor, "b n"], pad_id: int
) -> Int[Tensor, "b m"]:
    """Recent tokens followed by the real ones of each row, right-aligned."""
    line = torch.cat([recent, tokens], dim=1)
    known = torch.cat([torch.ones_like(recent, dtype=torch.bool), is_real], dim=1)
    order = known.long().argsort(dim=1, stable=True)
    return torch.where(known, line, pad_id).gather(1, order)


def _previous(line: Int[Tensor, "b m"], count: int, num_smeared: int) -> Int[Tensor, "b n s"]:
    """The tokens before each of the last `count` ones of the line, the nearest first."""
    end = line.shape[1]
    return torch.stack([line[:, end - count - s : end - s] for s in range(1, num_smeared + 1)], dim=-1)
