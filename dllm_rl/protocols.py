"""The interfaces of the house. Plug-ins implement them; nothing else is shared between packages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dllm_rl.environment import Environment

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dllm_rl.policies.process import ForwardProcess
    from dllm_rl.records.types import Completions, Loss, LossInputs, MeanOver, Prompts, Replays, Rollouts, Views

__all__ = ["Environment", "Objective", "Sampler"]


class Sampler(Protocol):
    """Writes completions; a dataclass. Draws depend on (seed, row id, position, step) and on nothing else."""

    name: ClassVar[str]
    families: ClassVar[tuple[str, ...]]

    @property
    def temperature(self) -> float:
        """Temperature of the draws, 0 for the most likely tokens. The source for everything that scores them."""
        ...

    @property
    def grammar(self) -> bool:
        """Whether the draws are constrained by the grammar of plans."""
        ...

    @property
    def approximation(self) -> str | None:
        """What the sampler does that a replay of its record by full forwards does not see; None: nothing."""
        ...

    def generate(self, policy: Any, prompts: Prompts, *, seed: int) -> Completions:
        """Sample one completion a row and record how it was written."""
        ...


class Objective(Protocol):
    """A reinforcement-learning objective: views, advantages, and a pure loss."""

    name: str
    paper: str
    level: str
    families: tuple[str, ...]
    requires: tuple[str, ...]
    needs_old: bool
    needs_ref: bool
    needs_flat_groups: bool
    learns_from_flat_groups: bool
    replays: Replays
    version: int
    group_coupled: bool
    mean_over: MeanOver
    min_inner_steps: int
    max_inner_steps: int | None
    exceptions: dict[str, str]
    own_metrics: dict[str, str]

    @property
    def num_views(self) -> int | None:
        """Views of a completion that are scored, at most; None where the recorded trajectory decides."""
        ...

    @property
    def estimates_elbo(self) -> bool:
        """Whether the weighted terms of its views are an unbiased estimate of the ELBO."""
        ...

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Draw the corrupted copies to be scored; called once for each inner step."""
        ...

    def advantages(self, rollouts: Rollouts) -> Tensor:
        """Advantages of whole groups: (b,), (b, s) or (b, l)."""
        ...

    def loss(self, inputs: LossInputs) -> Loss:
        """Loss from (k, b, l) log-probability terms. Pure: no model, no randomness, no distributed call."""
        ...
