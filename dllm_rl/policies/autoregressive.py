"""The autoregressive family: the control row, where every likelihood is exact and every surrogate coincides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.policies.attention import Causal, Reading, lower_triangle, readable
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.feed import Tokens, last_ids, neighbours, prompt_positions
from dllm_rl.policies.interface import empty_keys
from dllm_rl.policies.process import ForwardProcess
from dllm_rl.policies.sharing import share
from dllm_rl.records.types import Prompts, Rollouts, Views
from dllm_rl.registry import register

if TYPE_CHECKING:
    from dllm_rl.training.warmstart import Batch


@dataclass(slots=True, kw_only=True)
class DecodingState:
    """Keys and values of everything read so far, and logits of each row's next column. Changed in place by `advance`.

    Rows advance at their own pace: where one is fed fewer tokens than another, PAD that nobody reads fills the gap.

    Attributes:
        cache: Keys and values.
        visible: Which of the cached positions may be read.
        num_real: Prompt tokens of each row.
        column: Canvas columns fed so far.
        recent: The last tokens fed, the latest at the end.
        logits: Of the next column.
    """

    cache: Any
    visible: Bool[Tensor, "b t"]
    num_real: Int[Tensor, " b"]
    column: Int[Tensor, " b"]
    recent: Int[Tensor, "b s"]
    logits: Float[Tensor, "b v"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoregressiveProcess(ForwardProcess):
    """Nothing is ever hidden: the exact view stands for every other, and holds all steps of a trajectory."""

    family: ClassVar[str] = "autoregressive"

    def one_step(self, rollouts: Rollouts, generator: torch.Generator, *, prompt_mask_share: float = 0.0) -> Views:
        """Return the exact view."""
        if prompt_mask_share > 0:
            raise self._no_mask(f"so prompt_mask_share={prompt_mask_share} can hide nothing of a prompt. Set it to 0")
        return self.exact(rollouts)

    def elbo(
        self, rollouts: Rollouts, generator: torch.Generator, *, num_draws: int = 2, antithetic: bool = True
    ) -> Views:
        """Return the exact view."""
        return self.exact(rollouts)

    def strata(self, rollouts: Rollouts, generator: torch.Generator, *, num_strata: int = 4) -> Views:
        """Return the exact view."""
        return self.exact(rollouts)

    def scoring_all(self, rollouts: Rollouts) -> Rollouts:
        """Return the rollouts as they are."""
        return rollouts

    def quadrature(self, rollouts: Rollouts, generator: torch.Generator, *, num_nodes: int = 2) -> Views:
        """Return the exact view."""
        return self.exact(rollouts)

    def replay(self, rollouts: Rollouts, generator: torch.Generator, *, num_steps: int | None = None) -> Views:
        """Return the exact view: a step is a token."""
        return self.exact(rollouts)

    def replay_steps(
        self, rollouts: Rollouts, steps: Int[Tensor, "k b"], loss_weight: Float[Tensor, "k b"], *, span: int = 1
    ) -> Views:
        """Return the exact view."""
        return self.exact(rollouts)

    def left_to_right(self, rollouts: Rollouts, generator: torch.Generator, *, num_tokens: int | None = None) -> Views:
        """Return the exact view."""
        return self.exact(rollouts)

    def causal_clean(self, rollouts: Rollouts) -> Views:
        """Return the exact view."""
        return self.exact(rollouts)

    def causal_noised(self, rollouts: Rollouts, generator: torch.Generator) -> Views:
        """Return the exact view."""
        return self.exact(rollouts)

    def constrained_terms(
        self, logits: Float[Tensor, "b l v"], rollouts: Rollouts, view: Views, constraint: Constraint
    ) -> Float[Tensor, "b l"]:
        """Return log-probabilities of each token among those that the grammar allows after the tokens before it."""
        return constraint.next_token_log_probs(logits, view.tokens[0])

    def warm_start_loss(self, policy: BasePolicy, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Return the next-token cross-entropy up to and including EOS."""
        return policy.learning_loss(batch, batch.canvas, policy.canvas.until_eos(batch.canvas))


@register("policy", "autoregressive")
class AutoregressivePolicy(BasePolicy):
    """Writes left to right; column i is read at position i - 1 under causal attention."""

    family: ClassVar[str] = "autoregressive"
    usual_sampler: ClassVar[str] = "ar"
    is_exact: ClassVar[bool] = True
    is_bidirectional: ClassVar[bool] = False

    def make_process(self) -> AutoregressiveProcess:
        """Return the process in which nothing is hidden."""
        return AutoregressiveProcess(pad_id=self.canvas.pad_id, eos_id=self.canvas.eos_id, banned_ids=self.banned_ids)

    @property
    def reading(self) -> Reading:
        """Every position reads those before it, and scores the next token."""
        return Reading(attention=Causal(), is_shifted=True)

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """PAD is banned too, where it is not EOS: a row ends with EOS."""
        pad, eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        return super().banned_ids if pad == eos else (*super().banned_ids, pad)

    def start(
        self, prompts: Prompts, tokens: Int[Tensor, "b n"] | None = None, is_real: Bool[Tensor, "b n"] | None = None
    ) -> DecodingState:
        """Read each distinct prompt once; the state holds logits of column 0, or of what follows `tokens`.

        Args:
            tokens: What the canvases begin with.
            is_real: Which of the tokens count, in each row the first ones. Default: all.
        """
        ids, mask, column = prompts.ids, prompts.mask, torch.zeros_like(prompts.ids)
        if tokens is not None and tokens.numel():
            ids, mask, column = _followed_by(prompts, tokens, is_real, self.canvas.pad_id)
        state = DecodingState(
            cache=empty_keys(),
            visible=mask,
            num_real=prompts.mask.sum(dim=1),
            column=column.amax(dim=1),
            recent=last_ids(ids, self.interface.lookback, self.canvas.pad_id),
            logits=torch.empty(0),
        )
        shared = share([ids, mask, column])
        ids, mask, column = ids[shared.first], mask[shared.first], column[shared.first]
        reads = self.reading.attention.mask(mask, ids.shape[1])
        fed = Tokens(ids=ids, mask=reads, positions=prompt_positions(mask), columns=column)
        state.logits = self._next_logits(fed, state.cache)[shared.place]
        if shared.is_any:
            state.cache.batch_select_indices(shared.place.to(self.device))
        return state

    def advance(
        self, state: DecodingState, tokens: Int[Tensor, "b n"], is_real: Bool[Tensor, "b n"] | None = None
    ) -> None:
        """Append tokens to every row in one forward; the state then holds logits of what follows them.

        Args:
            is_real: Which of the tokens count, in each row the last ones and at least one. Default: all. The others are
                never read.
        """
        real = torch.ones_like(tokens, dtype=torch.bool) if is_real is None else is_real
        count = tokens.shape[1]
        before = state.visible[:, None, None, :].expand(-1, 1, count, -1)
        own = readable(real, lower_triangle(count))
        column = (state.column[:, None] + real.long().cumsum(dim=1)) * real
        line = _joined(state.recent, tokens, real, self.canvas.pad_id)
        fed = Tokens(
            ids=tokens,
            mask=torch.cat([before, own], dim=-1),
            positions=(state.num_real[:, None] + column - 1).clamp(min=0),
            columns=column,
            neighbours=neighbours(line, self.interface.lookback, self.canvas.pad_id)[:, -count:],
        )
        state.logits = self._next_logits(fed, state.cache)
        state.visible = torch.cat([state.visible, real], dim=1)
        state.column = state.column + real.sum(dim=1)
        state.recent = last_ids(line, self.interface.lookback, self.canvas.pad_id)

    def select_rows(self, state: DecodingState, index: Int[Tensor, " n"]) -> None:
        """Keep these rows only."""
        state.cache.batch_select_indices(index.to(self.device))
        state.visible, state.num_real, state.column = state.visible[index], state.num_real[index], state.column[index]
        state.logits, state.recent = state.logits[index], state.recent[index]

    def _next_logits(self, tokens: Tokens, cache: Any) -> Float[Tensor, "b v"]:
        """Logits of what follows these tokens."""
        last = torch.tensor([tokens.ids.shape[1] - 1])
        return self.forward(tokens, last, cache=cache)[:, -1]


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
