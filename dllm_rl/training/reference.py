"""The reference policy of a KL penalty: the policy as it was before training.

Where the model carries a fresh low-rank adapter (LoRA, 2106.09685), it is the same model with the adapter switched off,
and costs no memory. An adapter that was trained before is part of the warm start: switching it off would give another
policy, so then, as for a model without adapter, the reference is a frozen copy.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor, nn

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Rollouts, Views


class Reference(Protocol):
    """What the trainer asks of a reference policy."""

    def view_log_probs(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Unweighted log-likelihood terms, as `Policy.view_log_probs`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterOff:
    """The policy with its adapter switched off while it scores."""

    policy: BasePolicy

    def view_log_probs(self, rollouts: Rollouts, views: Views) -> Float[Tensor, "k b l"]:
        """Unweighted log-likelihood terms of the model under the adapter."""
        model: Any = self.policy.model
        with model.disable_adapter():
            return self.policy.view_log_probs(rollouts, views)


def reference_of(policy: BasePolicy) -> Reference:
    """The policy as it is now, whatever becomes of it in training."""
    if is_fresh_adapter(policy.model):
        return AdapterOff(policy=policy)
    reference = copy.copy(policy)
    reference.model = copy.deepcopy(policy.model).eval().requires_grad_(False)
    return reference


def is_fresh_adapter(model: nn.Module) -> bool:
    """Whether all that can be trained is a low-rank update A B whose B is still zero, so that it changes nothing."""
    # A peft model cannot exist before peft was imported, and importing it takes seconds.
    if "peft" not in sys.modules:
        return False
    from peft import PeftModel  # pyright: ignore[reportMissingImports]

    if not isinstance(model, PeftModel):
        return False
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    ups = [value for name, value in trained.items() if "lora_B" in name]
    downs = [name for name in trained if "lora_A" in name]
    return bool(ups) and len(ups) + len(downs) == len(trained) and all(not value.any() for value in ups)
