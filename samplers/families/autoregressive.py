"""Left-to-right decoding with an exact key-value cache; rows that have ended leave the batch.

Under the grammar, a token that must come next is written without a draw, and a run of such tokens is fed together with
the next forward. Rows proceed at their own pace, so that a batch takes no more forwards than its slowest row alone.
With an engine, another program writes (`samplers.engines`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.likelihood.constraint import START, Constraint
from dllm_rl.options import added
from dllm_rl.policies.autoregressive import AutoregressivePolicy, DecodingState
from dllm_rl.records.events import BEFORE_ALL, Kind
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.registry import register
from samplers.config import check_temperature
from samplers.engines.base import Request, completed
from samplers.engines.continuous_batching import ContinuousBatching
from samplers.engines.vllm_engine import VllmEngine
from samplers.grammar.compile import constraint_of
from samplers.loop.record import Recorder
from samplers.loop.sampling import TOKEN, entropy, pick, refuse_given, uniform_at


@register("sampler", "ar")
@dataclass(frozen=True, slots=True, kw_only=True)
class AutoregressiveSampler:
    """One token after another, one forward a draw.

    Attributes:
        temperature: Temperature of the draws; 0 takes the most likely tokens.
        grammar: Whether only tokens that lead to a plan can be written.
        engine: What writes in place of the policy's own forwards.
    """

    name: ClassVar[str] = "ar"
    version: ClassVar[int] = 1
    families: ClassVar[tuple[str, ...]] = ("autoregressive",)
    temperature: float = 1.0
    grammar: bool = False
    engine: Annotated[ContinuousBatching | VllmEngine, Field(discriminator="name")] | None = added(default=None)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        if self.engine is not None and self.grammar:
            raise ConfigError(
                f"engine '{self.engine.name}' and grammar=true were given, and an engine does not know the grammar. "
                "Leave one of them out."
            )

    @property
    def approximation(self) -> str | None:
        """An engine's numbers are its own."""
        return None if self.engine is None else f"draws with the engine '{self.engine.name}'"

    @torch.no_grad()
    def generate(self, policy: AutoregressivePolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row; a row without EOS at the end of the canvas keeps all its tokens."""
        refuse_given(prompts, self.name)
        if self.engine is not None:
            request = Request.of(policy, prompts, temperature=self.temperature, seed=seed)
            return completed(policy, request, self.engine.write(policy, request), engine=self.engine.name)
        return _Writing(self, policy, prompts, seed).run()


class _Writing:
    """One batch of canvases.

    column: the next column of each row; what stands before it is written. last_draw: step of the row's last draw.

    A step is a column: the step that wrote a token is the same whatever the rows beside it do. Forced tokens belong to
    the step of the draw before them.
    """

    def __init__(
        self, sampler: AutoregressiveSampler, policy: AutoregressivePolicy, prompts: Prompts, seed: int
    ) -> None:
        self.policy, self.prompts, self.seed, self.temperature = policy, prompts, seed, sampler.temperature
        self.canvas = policy.empty_canvas(len(prompts.ids))
        self.column = torch.zeros(len(self.canvas), dtype=torch.long)
        self.last_draw = torch.full_like(self.column, BEFORE_ALL)
        self.constraint = constraint_of(policy, prompts) if sampler.grammar else None
        self.record = Recorder(self.canvas, keeps_states=False, constraint=self.constraint)
        self.guide = None if self.constraint is None else _Guide(self.constraint)

    def run(self) -> Completions:
        rows = torch.arange(len(self.canvas))
        self._force(rows)
        rows = rows[self._is_unfinished(rows)]
        state = self._start(rows) if len(rows) else None
        while state is not None and len(rows):
            before = self.column[rows]
            self._draw(rows, state.logits)
            self._force(rows)
            is_unfinished = self._is_unfinished(rows)
            if not is_unfinished.any():
                break
            if not is_unfinished.all():
                index = is_unfinished.nonzero().squeeze(1)
                self.policy.select_rows(state, index)
                rows, before = rows[index], before[index]
            self._feed(rows, before, state)
        num_steps = int(self.column.max())
        return self.record.finish(self.policy, self.canvas, num_steps=num_steps)

    def _is_unfinished(self, rows: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Which of these rows have neither ended nor filled their canvas."""
        column = self.column[rows]
        last = self.canvas[rows, (column - 1).clamp(min=0)]
        return (column < self.canvas.shape[1]) & ((last != self.policy.canvas.eos_id) | (column == 0))

    def _start(self, rows: Int[Tensor, " n"]) -> DecodingState:
        """Read the prompts, and with them what the canvases must begin with."""
        prompts, column = self.prompts.rows(rows), self.column[rows]
        width = int(column.max())
        is_real = torch.arange(width) < column[:, None]
        state = self.policy.start(prompts, self.canvas[rows, :width], is_real)
        self.record.count(*state.visible.shape)
        return state

    def _draw(self, rows: Int[Tensor, " n"], logits: Float[Tensor, "n v"]) -> None:
        """The next token of each row."""
        column = self.column[rows]
        logits = logits if self.guide is None else self.guide.allowed_only(logits, rows, column)
        noise = uniform_at(self.seed, self.prompts.row_ids[rows], column, column, TOKEN)
        tokens, log_probs = pick(logits[:, None], self.temperature, noise[:, None])
        self.canvas[rows, column] = tokens[:, 0]
        uncertainty = entropy(logits[:, None], self.temperature)
        self.record.commit_at(rows, column, column, tokens[:, 0], log_probs[:, 0], uncertainty[:, 0])
        self.last_draw[rows] = column
        self.column[rows] += 1
        if self.guide is not None:
            self.guide.advance(rows, tokens[:, 0])

    def _force(self, rows: Int[Tensor, " n"]) -> None:
        """Write the tokens that must come next: probability 1, no draw, no forward."""
        if self.guide is None:
            return
        while len(rows := rows[self._is_unfinished(rows)]):
            tokens = self.guide.only_token(rows, self.column[rows])
            rows, tokens = rows[tokens >= 0], tokens[tokens >= 0]
            self.canvas[rows, self.column[rows]] = tokens
            self.record.write_at(rows, self.column[rows], self.last_draw[rows], tokens, Kind.FORCED)
            self.column[rows] += 1
            self.guide.advance(rows, tokens)

    def _feed(self, rows: Int[Tensor, " n"], before: Int[Tensor, " n"], state: DecodingState) -> None:
        """One forward over what was written since these columns; rows that wrote less are filled up on the left."""
        width = int((self.column[rows] - before).max())
        columns = self.column[rows, None] - width + torch.arange(width)
        is_real = columns >= before[:, None]
        tokens = self.canvas[rows].gather(1, columns.clamp(min=0))
        tokens = torch.where(is_real, tokens, self.policy.canvas.pad_id)
        self.policy.advance(state, tokens, is_real)
        self.record.count(len(rows), width)


class _Guide:
    """Where each row of the batch stands in its automaton, and which tokens may come next."""

    def __init__(self, constraint: Constraint) -> None:
        self.constraint, self.beta = constraint, constraint.unwritten()
        self.state = torch.full((len(constraint.token),), START)

    def allowed_only(
        self, logits: Float[Tensor, "n v"], rows: Int[Tensor, " n"], column: Int[Tensor, " n"]
    ) -> Float[Tensor, "n v"]:
        """The logits of these rows, with -inf where the grammar allows nothing."""
        allowed = self.constraint.rows(rows).allowed(self.state[rows], column, self.beta[rows])
        return logits.masked_fill(~allowed.to(logits.device), -torch.inf)

    def only_token(self, rows: Int[Tensor, " n"], column: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The token that must come next in these rows; -1 where there is a choice."""
        return self.constraint.rows(rows).only_token(self.state[rows], column, self.beta[rows])

    def advance(self, rows: Int[Tensor, " n"], tokens: Int[Tensor, " n"]) -> None:
        """Take one step along the written tokens."""
        self.state[rows] = self.constraint.rows(rows).next_states(self.state[rows], tokens)
