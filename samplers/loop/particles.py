"""Several canvases of each prompt that are weighed as they are written, and multiplied or dropped by their weights.

Sequential Monte Carlo: after a step the weight of a canvas is multiplied by its potential's growth; where the weights
of a prompt's canvases have become too unequal, as many are drawn from them with equal weights. In the end one canvas of
each prompt is drawn by its weight, and its past is the record.

Legend: b prompts, n particles of all prompts, l canvas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dllm_rl.errors import NonFiniteError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts
from samplers.loop.context import StepContext, Watcher
from samplers.loop.denoise import Denoising
from samplers.loop.guide import Potential
from samplers.loop.readers import Reader, WholeCanvas
from samplers.loop.record import Recorder
from samplers.loop.sampling import CHOICE, uniform

if TYPE_CHECKING:
    from samplers.rules.base import UnmaskingRule

# Purposes of drawing particles by their weights.
AGAIN, LAST = range(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """How particles are weighed.

    Attributes:
        num_particles: Canvases of each prompt.
        sharpness: Power of each drawn token's probability in a weight.
        least_share: Effective share of a prompt's particles below which they are resampled.
        potential: Further log-weight of a canvas; None for none.
    """

    num_particles: int
    sharpness: float
    least_share: float
    potential: Potential | None = None


class SharedCanvases(WholeCanvas):
    """Feeds prompt and canvas in every step, equal particles once."""

    def logits(self, rows: Tensor, unfinished: Tensor, canvas: Tensor, columns: Tensor, record: Recorder) -> Tensor:
        """One forward; what is counted are the distinct rows, which the policy feeds."""
        prompts = self.prompts.rows(rows)
        whole = torch.cat([prompts.mask, prompts.ids, canvas[rows], columns], dim=1)
        record.count(len(whole.unique(dim=0)), prompts.ids.shape[1] + canvas.shape[1])
        return self.policy.logits(prompts, canvas[rows], columns=columns)


class Particles(Denoising):
    """One batch of prompts with their particles under one rule."""

    def __init__(self, rule: UnmaskingRule, policy: BasePolicy, prompts: Prompts, seed: int, how: Weighing) -> None:
        self.how, self.num_prompts = how, len(prompts.ids)
        many = prompts.rows(torch.arange(self.num_prompts).repeat_interleave(how.num_particles))
        super().__init__(rule, policy, many, seed, Watcher())
        self.asked = prompts
        particle = torch.arange(how.num_particles).repeat(self.num_prompts)
        # Of the noise alone: every particle has its own.
        self.noise_ids = many.row_ids * how.num_particles + particle
        self.log_weights = torch.zeros(len(many.ids), dtype=torch.float64)
        self.worth = self._worth()

    def run(self) -> Completions:
        """Write, and return one particle of each prompt."""
        self._write_all()
        chosen = self._drawn_by_weight(1, LAST).squeeze(1)
        self.record.fork(chosen)
        return self.record.finish(self.policy, self.canvas[chosen], num_steps=self.step, is_approximate=True)

    def _reader(self) -> Reader:
        return SharedCanvases(self.policy, self.prompts)

    def _write(self, context: StepContext, chosen: Bool[Tensor, "n c"]) -> None:
        before = len(self.record.pieces)
        super()._write(context, chosen)
        drawn = self.record.pieces[before]
        self.log_weights.index_add_(0, drawn.row, self.how.sharpness * drawn.log_prob.double())

    def _between_steps(self) -> None:
        """Weigh, and resample the prompts whose weights have become too unequal."""
        worth = self._worth()
        self.log_weights += worth - self.worth
        self.worth = worth
        share = self.log_weights.view(self.num_prompts, -1).softmax(1)
        is_poor = 1 / share.square().sum(1) < self.how.least_share * self.how.num_particles
        if not is_poor.any():
            return
        ancestor = torch.arange(len(self.log_weights)).view(self.num_prompts, -1)
        ancestor = torch.where(
            is_poor[:, None], self._drawn_by_weight(self.how.num_particles, AGAIN), ancestor
        ).flatten()
        self.record.fork(ancestor)
        self.canvas, self.is_masked = self.canvas[ancestor], self.is_masked[ancestor]
        self.worth = self.worth[ancestor]
        self.log_weights = torch.where(is_poor.repeat_interleave(self.how.num_particles), 0.0, self.log_weights)

    def _drawn_by_weight(self, count: int, purpose: int) -> Int[Tensor, "b c"]:
        """Numbers of particles of each prompt, drawn systematically: with one uniform a prompt, step and purpose."""
        bounds = self.log_weights.view(self.num_prompts, -1).softmax(1).cumsum(1)
        step = self.steps_taken.view(self.num_prompts, -1).amax(1)
        level = uniform(self.seed, self.asked.row_ids, torch.tensor([purpose]), step, CHOICE)
        level = (level + torch.arange(count)) / count
        place = torch.searchsorted(bounds / bounds[:, -1:], level, right=True).clamp(max=self.how.num_particles - 1)
        return place + self.how.num_particles * torch.arange(self.num_prompts)[:, None]

    def _worth(self) -> Float[Tensor, " n"]:
        if self.how.potential is None:
            return torch.zeros(len(self.canvas), dtype=torch.float64)
        worth = self.how.potential(self.canvas, self.is_masked).double()
        if not worth.isfinite().all():
            particle = int((~worth.isfinite()).nonzero()[0])
            raise NonFiniteError(
                f"the potential of particle {particle} is {float(worth[particle])}; expected a finite number, the log "
                "of what its canvas is worth. To forbid a canvas, give a low number such as -1000."
            )
        return worth

    @property
    def noise_rows(self) -> Int[Tensor, " n"]:
        """What keys the noise of each particle."""
        return self.noise_ids
