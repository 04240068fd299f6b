"""Discrete flow with the exact jump of the mixture path (2402.04997, 2407.15595).

Between t and s each position is redrawn from the model's prediction with probability 1 - (1 - kappa_s) / (1 - kappa_t)
(it may get the token it had), which is the matrix exponential at a frozen prediction. The last step redraws every
position and is a recorded draw, never an unlogged argmax. At temperature 0 only the last step is an argmax.

Two other samplers step by rates: a position leaves its token at the summed rate of a step and takes a different one.
Euler's takes the rate at the start of the step (2407.15595), the cumulative one its integral over the step (FS-DFM,
2509.20624). Their last step redraws every position, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dllm_rl.constraint import Constraint
from dllm_rl.policies.flow import FlowPolicy, rate_log_prob, transition_log_prob
from dllm_rl.registry import register
from dllm_rl.trajectory import FlowLaw
from dllm_rl.types import Completions, Family, Prompts
from samplers.config import check_options
from samplers.grammar.automaton import Automata
from samplers.grammar.compile import constraint_of
from samplers.grammar.projection import project
from samplers.loop.chunks import in_chunks
from samplers.loop.record import Recorder
from samplers.loop.sampling import JUMP, SOURCE, TOKEN, entropy, pick, uniform, uniform_at


@register("sampler", "flow_exact")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowExactSampler:
    """num_steps: forwards, on an even time grid from 0 to 1. grammar: the last step draws from accepted plans only."""

    name: ClassVar[str] = "flow_exact"
    version: ClassVar[int] = 1
    families: ClassVar[tuple[Family, ...]] = ("flow",)
    law: ClassVar[FlowLaw] = "exact"
    temperature: float = 1.0
    num_steps: int = 16
    grammar: bool = False

    def __post_init__(self) -> None:
        check_options(self)

    @torch.no_grad()
    def generate(self, policy: FlowPolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row. The position's log-probability is the sum over its transitions."""
        return in_chunks(policy, prompts, lambda part: self._write(policy, part, seed))

    def _write(self, policy: FlowPolicy, prompts: Prompts, seed: int) -> Completions:
        num_rows, length = len(prompts.ids), policy.facts.canvas_length
        canvas = self._source(policy, prompts, torch.arange(length), seed)
        record = Recorder(canvas, keeps_states=True)
        constraint = constraint_of(policy, prompts) if self.grammar else None
        grid = torch.linspace(0, 1, self.num_steps + 1)
        for step in range(self.num_steps):
            now, after = grid[step].expand(num_rows), grid[step + 1].expand(num_rows)
            logits = policy.logits(prompts, canvas, time=now)
            record.count(num_rows, prompts.ids.shape[1] + length)
            if constraint is not None and step + 1 == self.num_steps:
                canvas = self._last_step(prompts, canvas, logits, constraint, record, seed)
            else:
                canvas = self._step(policy, prompts, canvas, logits, (now, after), record, step, seed)
        return record.finish(
            policy, canvas, num_steps=self.num_steps, time=grid, constraint=constraint, flow_law=self.law
        )

    def _temperature(self, step: int) -> float:
        """At temperature 0 only the last step is an argmax: otherwise nothing would move."""
        return 1.0 if self.temperature == 0 and step + 1 < self.num_steps else self.temperature

    def _step(
        self,
        policy: FlowPolicy,
        prompts: Prompts,
        canvas: Tensor,
        logits: Tensor,
        times: tuple[Tensor, Tensor],
        record: Recorder,
        step: int,
        seed: int,
    ) -> Tensor:
        """Redraw the positions that leave, and add every position's transition to the record."""
        temperature = self._temperature(step)
        scaled = logits if temperature in (0.0, 1.0) else logits / temperature
        total = scaled.logsumexp(dim=-1)
        seen = scaled.gather(-1, canvas[..., None]).squeeze(-1) - total
        leaves = uniform(seed, prompts.row_ids, torch.arange(canvas.shape[1]), step, JUMP) < self._leaving(
            policy, seen, times
        )
        row, column = leaves.nonzero(as_tuple=True)
        laws = logits[row, column]
        is_last = step + 1 == self.num_steps
        offered = laws if is_last else self._offered(laws, canvas[row, column])
        drawn, _ = pick(offered, temperature, uniform_at(seed, prompts.row_ids[row], column, step, TOKEN))
        new = canvas.clone()
        new[row, column] = drawn
        log_p = scaled.gather(-1, new[..., None]).squeeze(-1) - total
        passed = self._transition(policy, log_p, seen, new == canvas, times)
        uncertainty = torch.zeros(canvas.shape)
        uncertainty[row, column] = entropy(laws)
        record.jump(canvas, new, step, passed, uncertainty, is_last=is_last)
        return new

    def _leaving(self, policy: FlowPolicy, seen: Tensor, times: tuple[Tensor, Tensor]) -> Tensor:
        """Probability that each position is redrawn; seen: log-probability of the token that it has."""
        return policy.jump_probability(*times)[:, None]

    def _offered(self, laws: Tensor, tokens: Tensor) -> Tensor:
        """What a position that had this token is redrawn from, before the last step."""
        return laws

    def _transition(
        self, policy: FlowPolicy, log_p: Tensor, seen: Tensor, is_same: Tensor, times: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Log-probability of what became of each position."""
        return transition_log_prob(log_p, is_same, policy.jump_probability(*times)[:, None])

    def _last_step(
        self, prompts: Prompts, canvas: Tensor, logits: Tensor, constraint: Constraint, record: Recorder, seed: int
    ) -> Tensor:
        """Every position is redrawn: all from one accepted canvas. The steps before stay unconstrained."""
        everywhere = torch.ones_like(canvas, dtype=torch.bool)
        columns = torch.arange(canvas.shape[1]).expand_as(canvas)
        projection = project(Automata(constraint), logits, columns, canvas, everywhere, self.temperature)
        draw = projection.draw(everywhere, seed, prompts.row_ids, self.num_steps - 1)
        new, log_probs = draw.tokens.reshape(canvas.shape), draw.log_probs.reshape(canvas.shape)
        uncertainty = projection.entropy(everywhere).reshape(canvas.shape)
        record.jump(canvas, new, self.num_steps - 1, log_probs, uncertainty, is_last=True)
        return new

    def _source(self, policy: FlowPolicy, prompts: Prompts, columns: Tensor, seed: int) -> Tensor:
        allowed = torch.tensor(sorted(set(range(policy.vocab_size)) - set(policy.banned_ids)))
        noise = uniform(seed, prompts.row_ids, columns, 0, SOURCE)
        return allowed[(noise * len(allowed)).long()]


class _ByRates(FlowExactSampler):
    __slots__ = ()

    def _leaving(self, policy: FlowPolicy, seen: Tensor, times: tuple[Tensor, Tensor]) -> Tensor:
        """1 - exp(-A (1 - p(x))); all of them in the last step, whose rate is infinite."""
        rate = policy.rate(self.law, *times)[:, None]
        leave = -torch.expm1(-rate * (1 - seen.exp()))
        return torch.where(torch.isinf(rate), torch.ones_like(seen), leave)

    def _offered(self, laws: Tensor, tokens: Tensor) -> Tensor:
        """Any token but the one that is left."""
        return laws.scatter(-1, tokens[:, None], -torch.inf)

    def _transition(
        self, policy: FlowPolicy, log_p: Tensor, seen: Tensor, is_same: Tensor, times: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Of the law of a rate."""
        return rate_log_prob(log_p, seen, is_same, policy.rate(self.law, *times)[:, None])


@register("sampler", "flow_euler")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEulerSampler(_ByRates):
    """The rate at the start of each step, held for the whole of it. Options as of `flow_exact`."""

    name: ClassVar[str] = "flow_euler"
    paper: ClassVar[str] = "2407.15595"
    law: ClassVar[FlowLaw] = "euler"


@register("sampler", "flow_cumulative")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCumulativeSampler(_ByRates):
    """The rate's integral over each step, so that few steps move as much as many. Options as of `flow_exact`."""

    name: ClassVar[str] = "flow_cumulative"
    paper: ClassVar[str] = "2509.20624"
    law: ClassVar[FlowLaw] = "cumulative"
