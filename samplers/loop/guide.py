"""A reward as the potential of Sequential Monte Carlo (Feynman-Kac steering, 2501.06848).

A canvas is worth what its plan would earn if every line that fits the page did what it says; nothing is run. Of a
canvas that is written in part the whole lines are read, so that what is still open has earned nothing yet. Weights grow
by the difference of two steps, so that what they come to in the end is the finished plan's alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict, Field
from torch import Tensor

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.canvas import Canvas
from dllm_rl.records.evidence import Evidence, as_planned
from dllm_rl.records.types import Prompts
from dllm_rl.reward import Reward, scores

# Log of what a canvas is worth, written or in part (masks where nothing stands): one finite number a row.
Potential = Callable[[Int[Tensor, "n l"], Bool[Tensor, "n l"]], Float[Tensor, " n"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guide:
    """A reward that weighs plans while they are written.

    Attributes:
        reward: Registered name of a reward that does not need the truth, such as `flip` or `embedder`.
        options: Its options.
        strength: Log of how much more a plan that earns 1 weighs than one that earns nothing.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    reward: str
    options: Mapping[str, Any] = field(default_factory=dict)
    strength: Annotated[float, Field(gt=0)] = 10.0

    def build(self) -> Reward:
        """The reward. Raises ConfigError where it cannot be made, or reads what only a run plan shows."""
        reward = registry.build("reward", self.reward, self.options)
        if reward.needs_truth:
            raise ConfigError(
                f"guide.reward '{self.reward}' was given, and it reads what the server received; plans are weighed "
                "before they are run. Give one that does not need the truth, such as flip or embedder."
            )
        return reward

    def ingredients(self) -> list[Any]:
        """What decides its weights, as plain data."""
        identity = registry.identity("reward", self.reward, self.options)
        return [identity, self.build().ingredients(), self.strength]

    def potentials(self, policy: BasePolicy, num_particles: int) -> Callable[[Prompts], Potential]:
        """Return what makes the potential of prompts, of each of which so many canvases come one after another."""
        reward = self.build().of_policy(policy)
        return lambda prompts: self._potential(reward, policy.canvas, prompts, num_particles)

    def _potential(self, reward: Reward, canvas: Canvas, prompts: Prompts, num_particles: int) -> Potential:
        if prompts.pages is None or prompts.instructions is None:
            raise ConfigError(
                "guide weighs what plans do on their pages, and these prompts carry no pages and instructions. Sample "
                "with `dllm-rl eval`, `RolloutEngine`, or a grid; or leave guide out."
            )
        tasks = list(zip(prompts.instructions, prompts.pages, strict=True))
        known: dict[tuple[int, str], float] = {}

        def worth(ids: Tensor, is_masked: Tensor) -> Tensor:
            rows = enumerate(zip(ids.cpu(), is_masked.cpu(), strict=True))
            pairs = [(row // num_particles, whole_lines(canvas, *own)) for row, own in rows]
            # Particles are often alike, and most steps end no line.
            fresh = sorted(set(pairs) - known.keys())
            episodes = [as_planned(*tasks[prompt], text) for prompt, text in fresh]
            known.update(zip(fresh, self._values(reward, episodes), strict=True))
            return self.strength * torch.tensor([known[pair] for pair in pairs], dtype=torch.float64)

        return worth

    def _values(self, reward: Reward, episodes: list[Evidence]) -> list[float]:
        found = scores(reward, episodes) if episodes else []
        fault = next((score.fault for score in found if score.fault), "")
        if fault:
            raise ConfigError(f"guide.reward '{self.reward}' could not score a plan: {fault}.")
        return [score.value for score in found]


def whole_lines(canvas: Canvas, ids: Int[Tensor, " l"], is_masked: Bool[Tensor, " l"]) -> str:
    """The lines of a canvas in which nothing is open, in order; on one with free-running lines those of which both ends
    are known.
    """
    width = canvas.config.line_width
    line = torch.arange(len(ids)) // width if width is not None else _free_lines(canvas, ids, is_masked)
    is_open = torch.zeros(int(line.max()) + 1, dtype=torch.bool).index_put((line[is_masked],), torch.tensor(True))
    return canvas.decode(ids[~is_open[line]])


def _free_lines(canvas: Canvas, ids: Int[Tensor, " l"], is_masked: Bool[Tensor, " l"]) -> Int[Tensor, " l"]:
    """Number of each column's line, its break included; tokens that hold a break and more end a line too."""
    breaks = torch.tensor(["\n" in canvas.tokenizer.decode([token]) for token in ids.tolist()]) & ~is_masked
    return breaks.cumsum(0) - breaks.long()
