"""Discrete flow with the exact jump of the mixture path (2402.04997, 2407.15595).

Between t and s each position is redrawn from the model's prediction with probability 1 - (1 - kappa_s) / (1 - kappa_t)
(it may get the token it had), which is the matrix exponential at a frozen prediction. The last step redraws every
position and is a recorded draw, never an unlogged argmax. At temperature 0 only the last step is an argmax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dllm_rl.policies.flow import FlowPolicy
from dllm_rl.policies.transitions import ExactJump, transition_log_prob
from dllm_rl.records.types import Prompts
from samplers.loop.sampling import JUMP, SOURCE, TOKEN, uniform
from tests.samplers.plain.record import Recorder, Written
from tests.samplers.plain.statistics import entropy, pick


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowExactSampler:
    """num_steps: forwards, on an even time grid from 0 to 1."""

    name: ClassVar[str] = "flow_exact"
    families: ClassVar[tuple[str, ...]] = ("flow",)
    temperature: float = 1.0
    num_steps: int = 16

    @torch.no_grad()
    def generate(self, policy: FlowPolicy, prompts: Prompts, *, seed: int) -> Written:
        """Sample one completion a row. The position's log-probability is the sum over its transitions."""
        num_rows, length = len(prompts.ids), policy.facts.canvas_length
        columns = torch.arange(length)
        canvas = self._source(policy, prompts, columns, seed)
        record = Recorder(canvas, keeps_states=True)
        grid = torch.linspace(0, 1, self.num_steps + 1)
        for step in range(self.num_steps):
            is_last = step + 1 == self.num_steps
            now, after = grid[step].expand(num_rows), grid[step + 1].expand(num_rows)
            logits = policy.logits(prompts, canvas, time=now)
            record.count(num_rows, prompts.ids.shape[1] + length)
            temperature = 1.0 if self.temperature == 0 and not is_last else self.temperature
            drawn, _ = pick(logits, temperature, uniform(seed, prompts.row_ids, columns, step, TOKEN))
            jump = ExactJump(power=policy.facts.schedule_power).jump_probability(now, after)[:, None]
            jumps = uniform(seed, prompts.row_ids, columns, step, JUMP) < jump
            new = torch.where(jumps, drawn, canvas)
            scaled = logits if self.temperature == 0 else logits / temperature
            log_p = scaled.gather(-1, new[..., None]).squeeze(-1) - scaled.logsumexp(dim=-1)
            total = record.log_probs + transition_log_prob(log_p, new == canvas, jump)
            record.commit(torch.ones_like(jumps), step, total, record.entropy)
            record.entropy = torch.where(jumps, entropy(logits, temperature), record.entropy)
            canvas = new
            record.state(canvas)
        return record.finish(policy, canvas, time=grid)

    def _source(self, policy: FlowPolicy, prompts: Prompts, columns: Tensor, seed: int) -> Tensor:
        allowed = torch.tensor(sorted(set(range(policy.vocab_size)) - set(policy.banned_ids)))
        noise = uniform(seed, prompts.row_ids, columns, 0, SOURCE)
        return allowed[(noise * len(allowed)).long()]
