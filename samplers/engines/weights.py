"""A model's weights under the names of the stock decoder, an adapter added to what it was put on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dllm_rl.policies.head import without_adapter

_BASE = ".base_layer."


@torch.no_grad()
def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each weight; tied ones once. A model with an adapter stays as it is: sums are new tensors."""
    base = without_adapter(model)
    if base is model:
        yield from base.named_parameters()
        return
    from peft.tuners.lora import LoraLayer  # pyright: ignore[reportMissingImports]

    layers: dict[str, Any] = {name: part for name, part in base.named_modules() if isinstance(part, LoraLayer)}
    for name, weight in base.named_parameters():
        owner, is_adapted, rest = name.partition(_BASE)
        if not is_adapted:
            # The adapter's own weights lie in its layers, beside what it was put on.
            if not any(name.startswith(f"{layer}.") for layer in layers):
                yield name, weight
        elif rest == "weight":
            layer = layers[owner]
            added = sum(layer.get_delta_weight(adapter).float() for adapter in layer.active_adapters)
            yield f"{owner}.{rest}", (weight.float() + added).to(weight.dtype)
        else:
            yield f"{owner}.{rest}", weight
