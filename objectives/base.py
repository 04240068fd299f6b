"""What every objective states about itself; a method is a frozen dataclass whose fields are its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dllm_rl import advantages
from dllm_rl.advantages import AdvantageName
from dllm_rl.policies.process import ANY, ForwardProcess
from dllm_rl.records.types import MeanOver, Replays, Rollouts, Views

# Ranges that a preset is checked against.
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
AboveOne = Annotated[float, Field(gt=1)]
Count = Annotated[int, Field(ge=1)]
# The type of `beta` in methods that have no KL penalty.
NoPenalty = Annotated[float, Field(ge=0, le=0)]
# Types of options that a method has from its base class and does not read: the default, and nothing else.
NoMaskedPrompt = Annotated[float, Field(ge=0, le=0)]
NoClip = Annotated[float, Field(ge=0.2, le=0.2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Base of the built-in objectives: the flags of the `Objective` protocol, and group-relative advantages.

    Attributes:
        level: What one ratio spans (token, step or sequence).
        families: Policy families on which the method is defined.
        requires: Rollout fields that must be there.
        replays: Whether it scores the sampler's own recorded draws, and how.
        needs_old: Whether the loss reads the scores of the policy that sampled.
        group_coupled: The loss needs whole groups in one call.
        mean_over: What it divides the sum of its rows by; the weights of turns follow from it.
        min_inner_steps: Fewest updates on one batch of rollouts with which all its options have an effect.
        max_inner_steps: Most updates on one batch of rollouts for which the method is defined, None = any.
        exceptions: Properties of `dllm_rl.testing.check_objective` that the method breaks on purpose, with the reason.
        own_metrics: What its loss reports beyond docs/metrics.md, as name: meaning.
        version: Raised whenever the method's numbers change, so that results of the old one are not taken for its own.
        published: Options under which its loss is that of its public code (`parity: true` takes them); None where
            options cannot express that, or where there is no public code to compare with.
        beta: Weight of the KL penalty.
        advantage: Estimator of the advantage.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    level: ClassVar[str]
    families: ClassVar[tuple[str, ...]] = (ANY,)
    requires: ClassVar[tuple[str, ...]] = ()
    needs_old: ClassVar[bool] = True
    replays: ClassVar[Replays] = Replays.NONE
    group_coupled: ClassVar[bool] = False
    mean_over: ClassVar[MeanOver] = MeanOver.STEP
    min_inner_steps: ClassVar[int] = 1
    max_inner_steps: ClassVar[int | None] = None
    exceptions: ClassVar[dict[str, str]] = {}
    own_metrics: ClassVar[dict[str, str]] = {}
    version: ClassVar[int] = 2
    published: ClassVar[dict[str, Any] | None] = None

    beta: NonNegative = 0.0
    advantage: AdvantageName = "normalised"

    @property
    def num_views(self) -> int | None:
        """Views of a completion that are scored, at most; None where the recorded trajectory decides.

        Where likelihoods are exact (autoregressive) it is always one.
        """
        return 1

    @property
    def needs_ref(self) -> bool:
        """Whether the loss reads the reference policy's scores."""
        return self.beta > 0

    @property
    def estimates_elbo(self) -> bool:
        """Whether the weighted terms of its views are an unbiased estimate of the ELBO; the suite tests the claim."""
        return False

    @property
    def needs_flat_groups(self) -> bool:
        """Whether rows of groups without variance still have a gradient, so that the trainer must not drop them."""
        return self.needs_ref

    @property
    def learns_from_flat_groups(self) -> bool:
        """Whether groups whose rewards are all equal have a gradient, so that the trainer must not replace them.

        Beside those of `needs_flat_groups` these are advantages that follow from more than a group's final rewards.
        """
        return self.needs_flat_groups or self.advantage == "shrunk" or "step_rewards" in self.requires

    def advantages(self, rollouts: Rollouts) -> Float[Tensor, " b"]:
        """Advantages of whole groups; call before any split into micro-batches."""
        return advantages.advantages(rollouts, self.advantage)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedElbo(Method):
    """Base of methods that score antithetic pairs of ELBO views.

    Attributes:
        num_draws: Pairs a completion.
    """

    num_draws: Count = 2

    @property
    def estimates_elbo(self) -> bool:
        """Yes."""
        return True

    @property
    def num_views(self) -> int | None:
        """A pair for each draw."""
        return 2 * self.num_draws

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Antithetic pairs of ELBO views; the exact view for the autoregressive family."""
        return process.elbo(rollouts, generator, num_draws=self.num_draws)
