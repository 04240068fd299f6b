"""What an unmasking rule sees: the laws of a step before it chooses, and what was written where it may mask again;
and what else may look on, changing logits, showing drafts or stopping rows.

Legend: b rows of the step, n open positions, l canvas, m chosen positions, v vocabulary.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.types import Prompts
from samplers.grammar.projection import Projection

_LAST = 1 << 40


class View:
    """What a rule sees of one step, for the rows that still have masks. Statistics are computed once, when asked for.

    projection: the laws of the open positions. columns, is_open: which columns they are (rows with fewer open positions
    are filled up). quota: positions that a plain schedule commits now. step of num_steps: in this block. memory: the
    rule's own, kept for this batch. rows: which rows of the batch these are.
    """

    def __init__(
        self,
        *,
        projection: Projection | None,
        columns: Int[Tensor, "b n"],
        is_open: Bool[Tensor, "b n"],
        quota: int,
        step: int,
        num_steps: int,
        rows: Int[Tensor, " b"],
        noise: Any,
        memory: dict[str, Tensor],
    ) -> None:
        self._projection, self.columns, self.is_open, self.quota = projection, columns, is_open, quota
        self.step, self.num_steps, self.rows, self.memory = step, num_steps, rows, memory
        self._noise = noise

    @property
    def projection(self) -> Projection:
        """The laws of the open positions. Raises ConfigError in a rule that may wait."""
        if self._projection is None:
            raise ConfigError(
                "a rule that may wait (may_wait) chooses before the model is asked, so that waiting costs no forward: "
                "use noise, quota, progress and memory, or leave may_wait out to see laws."
            )
        return self._projection

    @property
    def progress(self) -> tuple[float, float]:
        """Share of the block's steps done before this one, and after it."""
        return self.step / self.num_steps, (self.step + 1) / self.num_steps

    def noise(self, stream: int) -> Float[Tensor, "b n"]:
        """Keyed uniforms at the open positions."""
        return self._noise(self.rows, self.columns, stream)

    @property
    def laws(self) -> Float[Tensor, "b n v"]:
        """Log marginals of the tokens, unnormalised."""
        return self.projection.laws

    @property
    def odds(self) -> Float[Tensor, "b n"]:
        """Log-odds of the most likely token."""
        return self.projection.odds

    @functools.cached_property
    def entropy(self) -> Float[Tensor, "b n"]:
        """Entropy in nats."""
        everywhere = torch.ones_like(self.is_open)
        return self.projection.entropy(everywhere).reshape(self.is_open.shape)

    @functools.cached_property
    def second(self) -> Float[Tensor, "b n"]:
        """Probability of the second most likely token."""
        best = self.laws.topk(2, dim=-1).values[..., 1]
        return (best - self.laws.logsumexp(dim=-1)).exp()

    def best(self, score: Float[Tensor, "b n"], count: int) -> Bool[Tensor, "b n"]:
        """The `count` open positions of highest score in each row; ties go to the lowest position."""
        return self.rank(score) < count

    def rank(self, score: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Place of each open position when sorted by falling score, from 0; others come behind all columns."""
        order = score.masked_fill(~self.is_open, -torch.inf).argsort(dim=1, descending=True, stable=True)
        return order.argsort(dim=1).masked_fill(~self.is_open, _LAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The block's columns after a step's commits, from which a rule may mask again.

    was_visible: had a token before the step. log_probs: of each token when it was drawn (0 where it was forced).
    view: of the step; its rows are the rows here.
    """

    view: View
    was_visible: Bool[Tensor, "b l"]
    log_probs: Float[Tensor, "b l"]
    in_block: Bool[Tensor, " l"]
    noise: Float[Tensor, "b l"]


class Watcher:
    """Looks on and changes nothing; subclasses override what they need. A watched batch is never divided.

    Legend: b rows, r rows asked, n asked columns, l canvas, v vocabulary, m drawn positions.
    """

    def logits(
        self,
        rows: Int[Tensor, " r"],
        prompts: Prompts,
        canvas: Int[Tensor, "r l"],
        columns: Int[Tensor, "r n"],
        logits: Float[Tensor, "r n v"],
    ) -> Float[Tensor, "r n v"]:
        """The model's logits of these rows of the batch, before any statistic is taken of them."""
        return logits

    def truncate(self, laws: Float[Tensor, "m v"]) -> Float[Tensor, "m v"]:
        """The tempered laws of positions that are about to be drawn; ranks were taken before."""
        return laws

    def wrote(self, canvas: Int[Tensor, "b l"], step: int) -> None:
        """A step has been written."""

    def block_done(self, canvas: Int[Tensor, "b l"], start: int, end: int) -> Bool[Tensor, " b"]:
        """Columns start to end are final; which rows are to stop here."""
        return torch.zeros(len(canvas), dtype=torch.bool)
