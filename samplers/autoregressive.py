"""Left-to-right decoding with an exact key-value cache; rows that have ended leave the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dllm_rl.constraint import START, Constraint
from dllm_rl.policies.autoregressive import AutoregressivePolicy
from dllm_rl.registry import register
from dllm_rl.types import Completions, Family, Prompts
from samplers._noise import TOKEN, uniform
from samplers._options import check_options
from samplers._record import Recorder
from samplers._statistics import entropy, pick
from samplers.grammar import constraint_of


@register("sampler", "ar")
@dataclass(frozen=True, slots=True, kw_only=True)
class AutoregressiveSampler:
    """Next token, at a temperature (0 is greedy); one forward a column. grammar: among those that lead to a plan."""

    name: ClassVar[str] = "ar"
    families: ClassVar[tuple[Family, ...]] = ("autoregressive",)
    temperature: float = 1.0
    grammar: bool = False

    def __post_init__(self) -> None:
        check_options(self)

    @torch.no_grad()
    def generate(self, policy: AutoregressivePolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row; a row without EOS at the end of the canvas keeps all its tokens."""
        num_rows, length = len(prompts.ids), policy.facts.canvas_length
        canvas = policy.empty_canvas(num_rows)
        record = Recorder(canvas, keeps_states=False)
        state = policy.start(prompts)
        record.count(*prompts.ids.shape)
        alive = torch.arange(num_rows)
        constraint = constraint_of(policy, prompts) if self.grammar else None
        guide = None if constraint is None else _Guide(constraint)
        for column in range(length):
            logits = state.logits if guide is None else guide.allowed_only(state.logits, column)
            tokens, log_probs = self._draw(logits, prompts.row_ids[alive], column, seed)
            canvas[alive, column] = tokens
            columns = torch.full_like(alive, column)
            record.commit_at(alive, columns, column, tokens, log_probs, entropy(logits[:, None])[:, 0])
            if guide is not None:
                guide.advance(tokens)
            going = tokens != policy.canvas.eos_id
            if column + 1 == length or not going.any():
                break
            if not going.all():
                index = going.nonzero().squeeze(1)
                policy.keep_rows(state, index)
                guide = None if guide is None else guide.rows(index)
                alive, tokens = alive[index], tokens[index]
            policy.advance(state, tokens)
            record.count(len(alive), 1)
        return record.finish(policy, canvas, num_steps=record.nfe, constraint=constraint)

    def _draw(self, logits: Tensor, row_ids: Tensor, column: int, seed: int) -> tuple[Tensor, Tensor]:
        noise = uniform(seed, row_ids, torch.tensor([column]), column, TOKEN)
        tokens, log_probs = pick(logits[:, None], self.temperature, noise)
        return tokens[:, 0], log_probs[:, 0]


class _Guide:
    """Where each row stands in its automaton, and which tokens may come next."""

    def __init__(self, constraint: Constraint) -> None:
        self.constraint, self.beta = constraint, constraint.unwritten()
        self.state = torch.full((len(constraint.token),), START)

    def allowed_only(self, logits: Tensor, column: int) -> Tensor:
        """The logits, with -inf where the grammar has no way on."""
        return logits.masked_fill(~self.constraint.allowed(self.state, column, self.beta), -torch.inf)

    def advance(self, tokens: Tensor) -> None:
        """Take one step along the written tokens."""
        self.state = self.constraint.next_states(self.state, tokens)

    def rows(self, index: Tensor) -> _Guide:
        """The rows that go on."""
        self.constraint, self.beta, self.state = self.constraint.rows(index), self.beta[index], self.state[index]
        return self
