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
from jaxtyping import Float, Int
from torch import Tensor

from dllm_rl.constraint import Constraint
from dllm_rl.policies.flow import FlowPolicy, rate_log_prob, transition_log_prob
from dllm_rl.registry import register
from dllm_rl.trajectory import FlowLaw
from dllm_rl.types import Completions, Family, Prompts
from samplers.config import check_count, check_temperature
from samplers.grammar.automaton import Automata
from samplers.grammar.compile import constraint_of
from samplers.grammar.projection import Constrained, Keys, Prediction
from samplers.loop.chunks import in_chunks
from samplers.loop.record import Recorder
from samplers.loop.sampling import JUMP, SOURCE, TOKEN, entropy, pick, uniform, uniform_at


@register("sampler", "flow_exact")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowExactSampler:
    """The exact jump of the mixture path.

    temperature: of the draws; at 0 only the last step takes the most likely tokens, otherwise nothing would move.
    num_steps: forwards, on an even time grid from 0 to 1.
    grammar: the last step draws from accepted plans only.
    """

    name: ClassVar[str] = "flow_exact"
    version: ClassVar[int] = 1
    families: ClassVar[tuple[Family, ...]] = ("flow",)
    law: ClassVar[FlowLaw] = "exact"
    approximation: ClassVar[str | None] = None
    temperature: float = 1.0
    num_steps: int = 16
    grammar: bool = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_count("num_steps", self.num_steps, "denoising steps")

    @torch.no_grad()
    def generate(self, policy: FlowPolicy, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row. The position's log-probability is the sum over its transitions."""
        return in_chunks(policy, prompts, lambda part: _Flowing(self, policy, part, seed).run())

    def temperature_at(self, step: int) -> float:
        """Temperature of a step's draws."""
        return 1.0 if self.temperature == 0 and step + 1 < self.num_steps else self.temperature

    def leaving(self, policy: FlowPolicy, log_p_seen: Tensor, times: tuple[Tensor, Tensor]) -> Tensor:
        """Probability that each position is redrawn. log_p_seen: log-probability of the token that it has."""
        return policy.jump_probability(*times)[:, None]

    def offered(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Logits that a position which had this token is redrawn from, before the last step."""
        return logits

    def transition(
        self, policy: FlowPolicy, log_p: Tensor, log_p_seen: Tensor, is_same: Tensor, times: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Log-probability of each position's transition. log_p: of the token after the step."""
        return transition_log_prob(log_p, is_same, policy.jump_probability(*times)[:, None])


class _ByRates(FlowExactSampler):
    __slots__ = ()

    def leaving(self, policy: FlowPolicy, log_p_seen: Tensor, times: tuple[Tensor, Tensor]) -> Tensor:
        """1 - exp(-A (1 - p(x))); 1 in the last step, whose rate is infinite."""
        rate = policy.rate(self.law, *times)[:, None]
        leave = -torch.expm1(-rate * (1 - log_p_seen.exp()))
        return torch.where(torch.isinf(rate), torch.ones_like(log_p_seen), leave)

    def offered(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Any token but the one that is left."""
        return logits.scatter(-1, tokens[:, None], -torch.inf)

    def transition(
        self, policy: FlowPolicy, log_p: Tensor, log_p_seen: Tensor, is_same: Tensor, times: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Log-probability of each position's transition by the rate."""
        return rate_log_prob(log_p, log_p_seen, is_same, policy.rate(self.law, *times)[:, None])


@register("sampler", "flow_euler")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEulerSampler(_ByRates):
    """The rate at the start of each step, held for the whole of it. Options as for `flow_exact`."""

    name: ClassVar[str] = "flow_euler"
    paper: ClassVar[str] = "2407.15595"
    law: ClassVar[FlowLaw] = "euler"


@register("sampler", "flow_cumulative")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCumulativeSampler(_ByRates):
    """The rate's integral over each step, so that few steps move as much as many. Options as for `flow_exact`."""

    name: ClassVar[str] = "flow_cumulative"
    paper: ClassVar[str] = "2509.20624"
    law: ClassVar[FlowLaw] = "cumulative"


class _Flowing:
    """One batch of canvases under one sampler of flows."""

    def __init__(self, sampler: FlowExactSampler, policy: FlowPolicy, prompts: Prompts, seed: int) -> None:
        self.sampler, self.policy, self.prompts, self.seed = sampler, policy, prompts, seed
        self.canvas = self._source()
        self.constraint = constraint_of(policy, prompts) if sampler.grammar else None
        self.record = Recorder(self.canvas, keeps_states=True, constraint=self.constraint)
        self.grid = torch.linspace(0, 1, sampler.num_steps + 1)

    def run(self) -> Completions:
        num_rows, num_steps = len(self.prompts.ids), self.sampler.num_steps
        for step in range(num_steps):
            times = self.grid[step].expand(num_rows), self.grid[step + 1].expand(num_rows)
            logits = self.policy.logits(self.prompts, self.canvas, time=times[0])
            self.record.count(num_rows, self.prompts.ids.shape[1] + self.canvas.shape[1])
            if self.constraint is not None and step + 1 == num_steps:
                self._accepted(logits, self.constraint)
            else:
                self._step(logits, step, times)
        return self.record.finish(
            self.policy, self.canvas, num_steps=num_steps, time=self.grid, flow_law=self.sampler.law
        )

    def _source(self) -> Int[Tensor, "b l"]:
        """Uniform over the ids that may be written."""
        allowed = torch.tensor(sorted(set(range(self.policy.vocab_size)) - set(self.policy.banned_ids)))
        columns = torch.arange(self.policy.facts.canvas_length)
        noise = uniform(self.seed, self.prompts.row_ids, columns, 0, SOURCE)
        return allowed[(noise * len(allowed)).long()]

    def _step(self, logits: Float[Tensor, "b l v"], step: int, times: tuple[Tensor, Tensor]) -> None:
        """Redraw the positions that leave, and record every position's transition."""
        policy, sampler, canvas, row_ids = self.policy, self.sampler, self.canvas, self.prompts.row_ids
        temperature, is_last = sampler.temperature_at(step), step + 1 == sampler.num_steps
        scaled = logits if temperature in (0.0, 1.0) else logits / temperature
        total = scaled.logsumexp(dim=-1)
        log_p_seen = scaled.gather(-1, canvas[..., None]).squeeze(-1) - total
        coin = uniform(self.seed, row_ids, torch.arange(canvas.shape[1]), step, JUMP)
        row, column = (coin < sampler.leaving(policy, log_p_seen, times)).nonzero(as_tuple=True)
        redrawn = logits[row, column]
        offered = redrawn if is_last else sampler.offered(redrawn, canvas[row, column])
        tokens, _ = pick(offered, temperature, uniform_at(self.seed, row_ids[row], column, step, TOKEN))
        after = canvas.clone()
        after[row, column] = tokens
        log_p = scaled.gather(-1, after[..., None]).squeeze(-1) - total
        log_probs = sampler.transition(policy, log_p, log_p_seen, after == canvas, times)
        uncertainty = torch.zeros(canvas.shape)
        uncertainty[row, column] = entropy(redrawn)
        self.record.jump(canvas, after, step, log_probs, uncertainty, is_last=is_last)
        self.canvas = after

    def _accepted(self, logits: Float[Tensor, "b l v"], constraint: Constraint) -> None:
        """Take the last step under the grammar: every position is redrawn, all from one accepted canvas."""
        canvas, last = self.canvas, self.sampler.num_steps - 1
        everywhere = torch.ones_like(canvas, dtype=torch.bool)
        prediction = Prediction(
            logits=logits,
            columns=torch.arange(canvas.shape[1]).expand_as(canvas),
            canvas=canvas,
            is_masked=everywhere,
            temperature=self.sampler.temperature,
        )
        distribution = Constrained(Automata(constraint), prediction)
        draw = distribution.draw(everywhere, Keys(seed=self.seed, row_ids=self.prompts.row_ids, step=last))
        after, log_probs = draw.tokens.reshape(canvas.shape), draw.log_probs.reshape(canvas.shape)
        uncertainty = distribution.entropy(everywhere).reshape(canvas.shape)
        self.record.jump(canvas, after, last, log_probs, uncertainty, is_last=True)
        self.canvas = after
