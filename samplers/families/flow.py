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

from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.policies.flow import FlowPolicy
from dllm_rl.policies.transitions import CumulativeJump, EulerJump, ExactJump, Transition
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.registry import register
from samplers.config import check_count, check_temperature
from samplers.grammar.automaton import Automata
from samplers.grammar.compile import constraint_of
from samplers.grammar.projection import Constrained, Keys, Prediction
from samplers.loop.record import Recorder
from samplers.loop.sampling import JUMP, SOURCE, TOKEN, entropy, in_chunks, pick, refuse_given, uniform, uniform_at


@register("sampler", "flow_exact")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowExactSampler:
    """The exact jump of the mixture path.

    Attributes:
        temperature: Temperature of the draws. At 0 only the last step takes the most likely tokens; otherwise nothing
            would move.
        num_steps: Number of forwards, on an even time grid from 0 to 1.
        grammar: Whether the last step draws from accepted plans only.
    """

    name: ClassVar[str] = "flow_exact"
    version: ClassVar[int] = 1
    families: ClassVar[tuple[str, ...]] = ("flow",)
    transition: ClassVar[type[Transition]] = ExactJump
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
        refuse_given(prompts, self.name)
        return in_chunks(policy, prompts, lambda part: _Flowing(self, policy, part, seed).run())

    def temperature_at(self, step: int) -> float:
        """Temperature of a step's draws."""
        return 1.0 if self.temperature == 0 and step + 1 < self.num_steps else self.temperature


@register("sampler", "flow_euler")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowEulerSampler(FlowExactSampler):
    """The rate at the start of each step, held for the whole of it. Options as for `flow_exact`."""

    name: ClassVar[str] = "flow_euler"
    paper: ClassVar[str] = "2407.15595"
    transition: ClassVar[type[Transition]] = EulerJump


@register("sampler", "flow_cumulative")
@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCumulativeSampler(FlowExactSampler):
    """The rate's integral over each step, so that few steps move as much as many. Options as for `flow_exact`."""

    name: ClassVar[str] = "flow_cumulative"
    paper: ClassVar[str] = "2509.20624"
    transition: ClassVar[type[Transition]] = CumulativeJump


class _Flowing:
    """One batch of canvases under one sampler of flows."""

    def __init__(self, sampler: FlowExactSampler, policy: FlowPolicy, prompts: Prompts, seed: int) -> None:
        self.sampler, self.policy, self.prompts, self.seed = sampler, policy, prompts, seed
        self.canvas = self._source()
        self.constraint = constraint_of(policy, prompts) if sampler.grammar else None
        self.record = Recorder(self.canvas, keeps_states=True, constraint=self.constraint)
        self.grid = torch.linspace(0, 1, sampler.num_steps + 1)
        self.transition = sampler.transition(power=policy.facts.schedule_power)

    def run(self) -> Completions:
        num_rows, num_steps = len(self.prompts.ids), self.sampler.num_steps
        for step in range(num_steps):
            times = self.grid[step].expand(num_rows), self.grid[step + 1].expand(num_rows)
            logits = self.policy.logits(self.prompts, self.canvas, time=times[0])
            self.record.count(num_rows, self.prompts.ids.shape[1] + self.canvas.shape[1])
            if self.constraint is not None and step + 1 == num_steps:
                self._accepted(logits.cpu(), self.constraint)
            else:
                self._step(logits, step, times)
        return self.record.finish(
            self.policy, self.canvas, num_steps=num_steps, time=self.grid, transition=self.transition
        )

    def _source(self) -> Int[Tensor, "b l"]:
        """Uniform over the ids that may be written."""
        source = torch.tensor(self.policy.source)
        columns = torch.arange(self.policy.facts.canvas_length)
        return source[(uniform(self.seed, self.prompts.row_ids, columns, 0, SOURCE) * len(source)).long()]

    def _step(self, logits: Float[Tensor, "b l v"], step: int, times: tuple[Tensor, Tensor]) -> None:
        """Redraw the positions that leave, and record every position's transition."""
        sampler, canvas, row_ids = self.sampler, self.canvas, self.prompts.row_ids
        times = times[0][:, None], times[1][:, None]
        temperature, is_last = sampler.temperature_at(step), step + 1 == sampler.num_steps
        scaled = logits if temperature in (0.0, 1.0) else logits / temperature
        total = scaled.logsumexp(dim=-1)

        def log_p(tokens: Tensor) -> Tensor:
            own = scaled.gather(-1, tokens[..., None].to(scaled.device)).squeeze(-1)
            return (own - total).cpu()

        coin = uniform(self.seed, row_ids, torch.arange(canvas.shape[1]), step, JUMP)
        row, column = (coin < self.transition.leaving(log_p, canvas, *times)).nonzero(as_tuple=True)
        redrawn = logits[row, column]
        offered = redrawn
        if self.transition.leaves_token and not is_last:
            offered = redrawn.scatter(-1, canvas[row, column][:, None].to(redrawn.device), -torch.inf)
        tokens, _ = pick(offered, temperature, uniform_at(self.seed, row_ids[row], column, step, TOKEN))
        after = canvas.clone()
        after[row, column] = tokens
        log_probs = self.transition.log_prob(log_p, canvas, after, *times)
        uncertainty = torch.zeros(canvas.shape, dtype=logits.dtype)
        uncertainty[row, column] = entropy(redrawn, temperature)
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
        self.record.jump(canvas, after, last, log_probs, draw.entropy.reshape(canvas.shape), is_last=True)
        self.canvas = after
