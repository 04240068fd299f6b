"""What others see of the denoise loop: a rule before it chooses and before it remasks, and a watcher.

Legend: b rows of the step, n columns asked about, l canvas, m sampled positions, v vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.records.types import Prompts
from samplers.grammar.projection import StepDistribution

_LAST = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStep:
    """One step of a block.

    Attributes:
        in_block: Columns of the block.
        begins_block: Whether a block of the policy begins with it, none of which is the prompt's.
        quota: Number of positions that a plain schedule unmasks in this step.
        index: This step's number in the block, from 0.
        num_steps: Number of steps of the block.
    """

    in_block: Bool[Tensor, " l"]
    begins_block: bool
    quota: int
    index: int
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a rule sees of one step, for the rows that still have masks. Statistics are computed once, when asked for.

    Attributes:
        rows: Rows of the batch.
        columns: Columns that the model was asked about; rows with fewer are padded.
        is_open: Which of them the rule may unmask now.
        block_step: Place of the step in its block.
        distribution: What the tokens of `columns` will be drawn from.
        noise_at: Uniforms keyed by row, column, the row's own step and stream.
        memory: The rule's own tensors, kept for the whole batch.
    """

    rows: Int[Tensor, " b"]
    columns: Int[Tensor, "b n"]
    is_open: Bool[Tensor, "b n"]
    block_step: BlockStep
    distribution: StepDistribution
    noise_at: Callable[[Tensor, Tensor, int], Tensor]
    memory: dict[str, Tensor]

    @property
    def quota(self) -> int:
        """Positions that a plain schedule unmasks in this step."""
        return self.block_step.quota

    @property
    def step(self) -> int:
        """This step's number in its block, from 0."""
        return self.block_step.index

    @property
    def num_steps(self) -> int:
        """Steps of the block."""
        return self.block_step.num_steps

    @property
    def progress(self) -> tuple[float, float]:
        """Share of the block's steps done before this one, and after it."""
        return self.step / self.num_steps, (self.step + 1) / self.num_steps

    def noise(self, stream: int) -> Float[Tensor, "b n"]:
        """Uniforms in (0, 1) at `columns`, keyed by row, column, step and stream."""
        return self.noise_at(self.rows, self.columns, stream)

    @property
    def logits(self) -> Float[Tensor, "b n v"]:
        """Unnormalised log-probabilities of each token, untempered; under the grammar those of its marginals.

        On the CPU, as all that a rule sees. Of a wide vocabulary on a GPU, `statistic` copies less.
        """
        return self.distribution.logits.cpu()

    def statistic(self, of: Callable[[Float[Tensor, "b n v"]], Tensor]) -> Tensor:
        """Return a function of `logits` that is computed where they are, on the model's device."""
        return of(self.distribution.logits).cpu()

    @property
    def log_odds(self) -> Float[Tensor, "b n"]:
        """Log-odds of the most likely token."""
        return self.distribution.log_odds

    @functools.cached_property
    def entropy(self) -> Float[Tensor, "b n"]:
        """Entropy in nats."""
        everywhere = torch.ones_like(self.is_open)
        return self.distribution.entropy(everywhere).reshape(self.is_open.shape)

    @functools.cached_property
    def second_probability(self) -> Float[Tensor, "b n"]:
        """Probability of the second most likely token."""
        return self.statistic(_second_probability)

    def best(self, score: Float[Tensor, "b n"], count: int) -> Bool[Tensor, "b n"]:
        """The `count` open positions of highest score in each row; ties go to the lowest column."""
        return self.rank(score) < count

    def rank(self, score: Float[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        """Rank of each open position by falling score, from 0; larger than any column's number elsewhere."""
        order = score.masked_fill(~self.is_open, -torch.inf).argsort(dim=1, descending=True, stable=True)
        return order.argsort(dim=1).masked_fill(~self.is_open, _LAST)


def _second_probability(logits: Float[Tensor, "b n v"]) -> Float[Tensor, "b n"]:
    second = logits.topk(2, dim=-1).values[..., 1]
    return (second - logits.logsumexp(dim=-1)).exp()


@dataclass(frozen=True, slots=True, kw_only=True)
class RemaskContext:
    """The canvas after a step's tokens were written, of which a rule may remask some.

    Attributes:
        step: The step that wrote; its rows are the rows here.
        was_visible: Columns of the block that had a token before the step.
        is_drawn: Columns of the block whose token was drawn: neither given nor implied by the grammar.
        log_probs: Log-probability of each token when it was drawn (0 where the grammar implied it).
        is_complete: Rows that have nothing left to write in the block, or before their EOS.
        noise: Uniforms in (0, 1).
    """

    step: StepContext
    was_visible: Bool[Tensor, "b l"]
    is_drawn: Bool[Tensor, "b l"]
    is_complete: Bool[Tensor, " b"]
    log_probs: Float[Tensor, "b l"]
    noise: Float[Tensor, "b l"]

    @property
    def in_block(self) -> Bool[Tensor, " l"]:
        """Columns of the block, which alone can be remasked."""
        return self.step.block_step.in_block


class Watcher:
    """An onlooker of the loop that changes nothing; subclasses override what they need.

    A watched batch is written as one, never in chunks. Legend: b rows of the batch, r rows of the step.
    """

    @property
    def changes_draws(self) -> bool:
        """Whether tokens are drawn from other distributions than the policy's, which a replay does not see."""
        return False

    def logits(
        self,
        rows: Int[Tensor, " r"],
        prompts: Prompts,
        canvas: Int[Tensor, "r l"],
        columns: Int[Tensor, "r n"],
        logits: Float[Tensor, "r n v"],
    ) -> Float[Tensor, "r n v"]:
        """Return the model's logits of these rows, changed or not, before any statistic is taken of them."""
        return logits

    def truncate(self, logits: Float[Tensor, "m v"]) -> Float[Tensor, "m v"]:
        """Return the tempered logits of the positions about to be sampled; rules have ranked before this."""
        return logits

    def wrote(self, canvas: Int[Tensor, "b l"], step: int) -> None:
        """See the canvas after a step."""

    def block_done(self, canvas: Int[Tensor, "b l"], start: int, end: int) -> Bool[Tensor, " b"]:
        """Return the rows that stop here, where columns start to end are final."""
        return torch.zeros(len(canvas), dtype=torch.bool)
