"""AdamW, and for weights in half precision AdamW on copies of them in float32 (master weights, 1710.03740).

A bfloat16 number has eight bits: a step of one part in a thousand of a weight rounds to none, so at rates such as 1e-6
hardly a weight would ever move. The copies move, and what the model holds are the copies, rounded. Steps are exact; the
price is eight bytes a weight, a copy and its gradient, while a step is taken. Gradients are not: PyTorch adds those of
micro-batches up in the weights' own precision, so that in half precision many small micro-batches round more than few.

AdamW's averages take eight bytes a weight, or two and a little in 8 bits (2110.02861, by bitsandbytes).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from dllm_rl.errors import ConfigError
from dllm_rl.load_options import OptimiserName


def adamw(weights: Iterable[Tensor], *, kind: OptimiserName = "adamw", **settings: Any) -> torch.optim.Optimizer:
    """Return AdamW over these weights, with master weights where any are in half precision.

    Raises ConfigError where the package of that kind is not installed.
    """
    trained = list(weights)
    plain = torch.optim.AdamW if kind == "adamw" else _in_8_bits()
    is_half = any(weight.dtype in (torch.bfloat16, torch.float16) for weight in trained)
    return _on_copies(plain)(trained, **settings) if is_half else plain(trained, **settings)


def require_optimiser(kind: OptimiserName) -> None:
    """Raise ConfigError where the package of that kind is not installed."""
    if kind == "adamw_8bit":
        _in_8_bits()


def _in_8_bits() -> type[torch.optim.Optimizer]:
    """AdamW whose averages are numbers of 8 bits; those of tensors with fewer than 4,096 numbers stay whole."""
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ConfigError(
            "optimiser=adamw_8bit needs the package bitsandbytes: pip install 'dllm-rl[bitsandbytes]'"
        ) from None
    return AdamW8bit


@functools.cache
def _on_copies(plain: type[torch.optim.Optimizer]) -> Any:
    """An optimiser of this kind whose parameters are copies."""
    return type("MasterWeights", (MasterWeights, plain), {})


class MasterWeights(torch.optim.Optimizer):
    """An optimiser whose parameters are float32 copies of a model's weights, which are written back after each step.

    It stands before the optimiser among the bases of a class.
    """

    def __init__(self, weights: list[Tensor], **settings: Any) -> None:
        self.weights = weights
        super().__init__([weight.detach().float().clone() for weight in weights], **settings)  # type: ignore[call-arg]

    @property
    def masters(self) -> list[Tensor]:
        """The copies, in the order of the weights."""
        return self.param_groups[0]["params"]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take a step on the copies with the weights' gradients, and write the copies back."""
        assert closure is None, "a step on copies cannot evaluate the model again"
        for weight, master in zip(self.weights, self.masters, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
        super().step()
        for weight, master in zip(self.weights, self.masters, strict=True):
            weight.copy_(master)
            master.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the weights' gradients."""
        for weight in self.weights:
            if set_to_none:
                weight.grad = None
            elif weight.grad is not None:
                weight.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimiser's state with the copies, without which a resumed run would not be the same."""
        return {**super().state_dict(), "masters": self.masters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state and the copies."""
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "masters"})
        for master, stored in zip(self.masters, state_dict["masters"], strict=True):
            master.copy_(stored)
