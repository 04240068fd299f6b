"""The rewarded policy itself as inverter, with the weights of the moment: a negative control.

Reward and policy drift together. What the policy learns changes how it infers instructions, so that a plan may come to
invert well because the weights agree with themselves and not because the plan is right. Compare with the inverter
`policy` on the checkpoint that training starts from: the same weights, frozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dllm_rl.errors import ConfigError
from dllm_rl.inverters.policy import Inverting
from dllm_rl.options import unkeyed
from dllm_rl.policies.base import BasePolicy
from dllm_rl.registry import register


@register("inverter", "live")
@dataclass(frozen=True, kw_only=True)
class LiveInverter(Inverting):
    """The policy whose episodes are rewarded, as it is now; it must have learned to infer instructions, too.

    Whoever samples says which policy that is (`of_policy`): training, evaluation, and the sampler `smc` with a guide.
    """

    version: ClassVar[int] = 1
    # Asked before the policy is known; `of_policy` looks again.
    knows_likelihood: ClassVar[bool] = True

    batch_rows: Annotated[int, Field(ge=1)] = unkeyed(64)

    @property
    def folder(self) -> Path | None:
        """It has no files of its own."""
        return None

    @property
    def policy(self) -> BasePolicy:  # type: ignore[override]
        """Raises ConfigError: no policy is being rewarded."""
        raise ConfigError(
            "inverter 'live' infers with the weights of the policy that is rewarded, and there is none here. Use it in "
            "training or `eval`, or give a checkpoint: {inverter_options: {checkpoint: FOLDER}}."
        )

    def of_policy(self, policy: BasePolicy) -> BoundInverter:
        """This policy as inverter."""
        return BoundInverter(policy=policy, batch_rows=self.batch_rows)

    def ingredients(self) -> list[Any]:
        """Nothing that the key of the policy does not say."""
        return []


@dataclass(frozen=True, kw_only=True)
class BoundInverter(Inverting):
    """A policy that infers with the weights of the moment."""

    policy: BasePolicy
    batch_rows: int

    @property
    def folder(self) -> Path | None:
        """It has no files of its own."""
        return None

    @property
    def knows_likelihood(self) -> bool:
        """Whether the family knows exact likelihoods."""
        return self.policy.is_exact

    def of_policy(self, policy: BasePolicy) -> BoundInverter:
        """The same."""
        return self

    def ingredients(self) -> list[Any]:
        """Nothing that the key of the policy does not say."""
        return []
