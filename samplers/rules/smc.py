"""Sequential Monte Carlo over several canvases of a prompt, weighed by what they are worth (after 2602.01849).

Each prompt is written `num_particles` times at once by a confidence threshold. A canvas weighs the product of its
tokens' probabilities to the power `sharpness`, so that the sure ones multiply; with a `guide`, also the exponential of
what a reward gives its plan (`samplers.loop.guide`). Its target is the rule's own distribution times that weight, which
it reaches with many particles: at sharpness 0 and without a guide it is the rule itself.
Departure: the paper's weights are known from its abstract ("trajectory confidence") only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from dllm_rl.errors import ConfigError
from dllm_rl.options import unkeyed
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.registry import register
from samplers.config import check_count, is_number
from samplers.loop.context import Watcher
from samplers.loop.guide import Guide, Potential
from samplers.loop.particles import Particles, Weighing
from samplers.loop.sampling import in_chunks
from samplers.rules.threshold import ThresholdSampler


@register("sampler", "smc")
@dataclass(frozen=True, slots=True, kw_only=True)
class SMCSampler(ThresholdSampler):
    """What `threshold` writes, several times a prompt, of which one is drawn by its weight.

    The record is approximate: that a canvas was kept depended on others. Caches and guidance are not offered.

    Attributes:
        num_particles: Canvases of each prompt; all of them are fed, equal ones once.
        sharpness: Power of the tokens' probabilities in the weights.
        least_share: Effective share of the particles below which they are resampled.
        guide: A reward that weighs canvases, too.
    """

    name: ClassVar[str] = "smc"
    paper: ClassVar[str] = "2602.01849, 2501.06848"
    families: ClassVar[tuple[str, ...]] = ("masked",)
    num_particles: int = 4
    sharpness: float = 1.0
    least_share: float = 0.5
    # Results are keyed by what it is made of (`ingredients`).
    guide: Guide | None = unkeyed(None)

    def ingredients(self) -> list[Any]:
        """The guide's reward and strength, and the files that it reads."""
        return [] if self.guide is None else self.guide.ingredients()

    @property
    def approximation(self) -> str | None:
        """What is kept depends on other canvases."""
        return "keeps one of several canvases by its weight"

    @torch.no_grad()
    def generate(
        self,
        policy: BasePolicy,
        prompts: Prompts,
        *,
        seed: int,
        watcher: Watcher | None = None,
        potential: Potential | None = None,
    ) -> Completions:
        """Sample one completion a row.

        Args:
            policy: The policy.
            prompts: One a row.
            seed: Of all noise.
            watcher: None; there is no one canvas of a row to watch.
            potential: Log of what canvases are worth, from their tokens and which are masked; at any step, and
                finite. NonFiniteError is raised where it is not.
        """
        if watcher is not None:
            raise ConfigError(
                "smc writes several canvases of a row, so that none can be watched, streamed or stopped, and no logits "
                "processed. Take another sampler, or leave streamers, callbacks and processors out."
            )
        if potential is not None and self.guide is not None:
            raise ConfigError("a potential was given, and smc has a guide, which is one. Leave one of them out.")
        of_rows = (lambda part: potential) if self.guide is None else self.guide.potentials(policy, self.num_particles)

        def write(part: Prompts) -> Completions:
            return Particles(self, policy, part, seed, self._weighing(of_rows(part))).run()

        return in_chunks(policy, prompts, write)

    def _weighing(self, potential: Potential | None) -> Weighing:
        return Weighing(
            num_particles=self.num_particles,
            sharpness=self.sharpness,
            least_share=self.least_share,
            potential=potential,
        )

    def __post_init__(self) -> None:
        if self.cache not in ("exact", "none") or self.guidance:
            raise ConfigError(
                f"cache={self.cache!r} and guidance={self.guidance:g} were given; smc reads whole canvases without "
                "guidance. Leave them out."
            )
        ThresholdSampler.__post_init__(self)
        check_count("num_particles", self.num_particles, "canvases of a prompt")
        if not (is_number(self.sharpness) and self.sharpness >= 0):
            raise ConfigError(f"sharpness={self.sharpness}: expected a number of at least 0")
        if not 0 < self.least_share <= 1:
            raise ConfigError(f"least_share={self.least_share}: expected a share above 0, at most 1")
        if self.guide is not None:
            self.guide.build()
