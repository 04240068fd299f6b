"""Weights, gradients and the optimiser's state in shards over the processes of a run, by PyTorch's FSDP2 (2304.11277).

A forward of a sharded model is an exchange between all processes, and processes that sample or score different rows
need different numbers of forwards. So they do that on *gathered* weights, without any exchange; what is sharded are the
forwards on the way to a gradient, of which all processes do the same number (`training.update`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def shard(model: nn.Module) -> None:
    """Keep of each weight one part a process, in place; layers are gathered one after another.

    Gradients add up over the processes, as those of `Ranks` do. They are added in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    device = next(model.parameters()).device
    settings: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (dist.get_world_size(),)),
        "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
    }
    layers = next((part for part in model.modules() if isinstance(part, nn.ModuleList)), ())
    for layer in layers:
        fully_shard(layer, **settings, reshard_after_forward=True)
    # The rest stays whole until the way back: the output head may be read after the forward, in tiles.
    fully_shard(model, **settings, reshard_after_forward=False)
    for part in _parts(model):
        part.set_gradient_divide_factor(1.0)
        # gloo cannot scale a sum.
        part.set_force_sum_reduction_for_comms(True)


def is_sharded(model: nn.Module) -> bool:
    """Whether processes have parts of this model's weights."""
    return bool(_parts(model))


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Whole weights in every process while the context is open, for any number of forwards without gradient.

    All processes open it together. Where weights are whole already nothing happens.
    """
    parts = _parts(model)
    if not parts or not _is_shard(next(model.parameters())):
        yield
        return
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not model, recurse=False)
            part.reshard()


def whole(value: Any, *, is_kept: bool = True) -> Any:
    """Return a tensor, or data that holds tensors, with each shard made whole on the CPU; what is not sharded as it is.

    Args:
        is_kept: Whether this process wants it. All take part, one tensor at a time; those that do not get empty ones.
    """
    if isinstance(value, dict):
        return {key: whole(item, is_kept=is_kept) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(item, is_kept=is_kept) for item in value)
    if isinstance(value, Tensor) and _is_shard(value):
        full = value.full_tensor()  # type: ignore[attr-defined]
        return full.cpu() if is_kept else full.new_empty(0)
    return value


def like(value: Tensor, target: Tensor) -> Tensor:
    """Return this process's part of a whole tensor, as that of the target is; the tensor where it is not sharded."""
    if not _is_shard(target):
        return value
    from torch.distributed.tensor import distribute_tensor

    there: Any = target
    return distribute_tensor(value.to(there.device), there.device_mesh, there.placements, src_data_rank=None)


def _is_shard(tensor: Tensor) -> bool:
    if not dist.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _parts(model: nn.Module) -> list[Any]:
    """The modules whose weights are gathered together."""
    # Without other processes nothing is sharded, and importing FSDP takes time.
    if not dist.is_initialized():
        return []
    from torch.distributed.fsdp import FSDPModule

    return [part for part in model.modules() if isinstance(part, FSDPModule)]
