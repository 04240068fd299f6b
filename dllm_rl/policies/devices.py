"""Which device a policy is loaded on: where `cuda` names no GPU, one for each process of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoadOptions

_place: int | None = None


@contextmanager
def at_place(number: int) -> Iterator[None]:
    """Have plain `cuda` mean the visible GPU of this number while the context is open; numbers beyond the last wrap."""
    global _place
    before, _place = _place, number
    try:
        yield
    finally:
        _place = before


def usable_device(options: LoadOptions) -> torch.device:
    """Return the device; for plain `cuda` the GPU of this process, where several run side by side.

    Raises ConfigError where this machine lacks it, or it lacks the attention.
    """
    device = torch.device(options.device)
    if device.type == "cpu":
        if options.attention == "flex_attention":
            raise ConfigError(
                "attention=flex_attention was given with device=cpu, where its kernels have no backward pass. Leave it "
                "out, or take sdpa or eager."
            )
        return device
    backend = torch.cuda if device.type == "cuda" else torch.mps
    count = backend.device_count() if device.type == "cuda" or torch.backends.mps.is_available() else 0
    if options.device == "cuda":
        device = _own_gpu(count)
    if (device.index or 0) >= count:
        raise ConfigError(
            f"device={device} was given; this machine has {count} of that kind with PyTorch "
            f"{torch.__version__}. Take device=cpu, or install a PyTorch that is built for your GPU."
        )
    return device


def _own_gpu(count: int) -> torch.device:
    """What plain `cuda` means: the GPU that a launcher or `at_place` gives this process, else PyTorch's current one."""
    if "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if _place is None or not count:
        return torch.device("cuda")
    return torch.device("cuda", _place % count)


def device_name(options: LoadOptions) -> str:
    """Name of the device for people and records: of a GPU its model's."""
    device = usable_device(options)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
