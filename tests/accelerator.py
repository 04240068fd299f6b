"""An accelerator that is not there: tensors that say they are on one, refuse to meet those of the CPU, and count what
is copied back. They live in main memory, so that what runs on a GPU can be tested where none is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# A device that asks for no driver.
DEVICE = torch.device("meta")
# Operators that take indices or masks of the CPU beside tensors of a GPU.
_INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default}


class Elsewhere(Tensor):
    """A tensor on the accelerator, around one of the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=DEVICE, requires_grad=False
        )
        made.held = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} runs outside of an accelerator")


class Accelerator(TorchDispatchMode):
    """Runs what is on it in main memory. Raises RuntimeError where tensors of both devices meet.

    Attributes:
        copied: Bytes that were copied to the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copied = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [value for value in _flat((args, kwargs)) if isinstance(value, Tensor)]
        is_here = any(isinstance(value, Elsewhere) for value in given)
        wanted = kwargs.get("device")
        if func is torch.ops.aten._to_copy.default and wanted is not None:
            return self._moved(func, args, kwargs, is_here)
        if func is torch.ops.aten.copy_.default:
            args[0].held.copy_(_inner(args[1])) if isinstance(args[0], Elsewhere) else args[0].copy_(_inner(args[1]))
            return args[0]
        if wanted is not None and torch.device(wanted).type == DEVICE.type:
            kwargs["device"], is_here = torch.device("cpu"), True
        if is_here:
            self._refuse_strangers(func, args, given)
        found = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
        if not is_here:
            return found
        by_inner = {id(value.held): value for value in given if isinstance(value, Elsewhere)}
        return tree_map(lambda value: _outer(value, by_inner), found)

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any], is_here: bool) -> Any:
        is_to_cpu = torch.device(kwargs.pop("device")).type == "cpu"
        moved = func(*tree_map(_inner, args), **kwargs)
        self.copied += moved.nbytes if is_here and is_to_cpu else 0
        return moved if is_to_cpu else Elsewhere(moved)

    def _refuse_strangers(self, func: Any, args: Any, given: list[Tensor]) -> None:
        if func in _INDEXING and isinstance(args[0], Elsewhere):
            given = [value for value in _flat(args[2:]) if isinstance(value, Tensor)]
        elif func in _INDEXING:
            raise RuntimeError(f"{func}: a tensor of the CPU is indexed by one of the accelerator")
        strangers = [value for value in given if value.device != DEVICE and value.dim()]
        if strangers:
            raise RuntimeError(
                f"{func}: expected all tensors on {DEVICE}, found {tuple(strangers[0].shape)} on the CPU"
            )


def _flat(tree: Any) -> list[Any]:
    return tree_leaves(tree)


def _inner(value: Any) -> Any:
    if isinstance(value, Tensor) and value.device == DEVICE:
        if isinstance(value, Elsewhere):
            return value.held
        assert not value.numel(), "PyTorch made a tensor on the accelerator past the mode, and its values are lost"
        return torch.empty_like(value, device="cpu")
    return value


def _outer(value: Any, known: dict[int, Elsewhere]) -> Any:
    """In-place operators return their own tensor."""
    return known.get(id(value), Elsewhere(value)) if isinstance(value, Tensor) else value


@contextlib.contextmanager
def on_accelerator(model: torch.nn.Module) -> Iterator[Accelerator]:
    """The model's parameters and buffers are on the accelerator meanwhile."""
    own = [(module, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    try:
        with Accelerator() as accelerator:
            for module, parameters, buffers in own:
                for name, value in parameters.items():
                    if value is not None:
                        module._parameters[name] = torch.nn.Parameter(Elsewhere(value.detach()))
                for name, value in buffers.items():
                    module._buffers[name] = None if value is None else Elsewhere(value)
            yield accelerator
    finally:
        for module, parameters, buffers in own:
            module._parameters.update(parameters)
            module._buffers.update(buffers)
