"""The processes of one training run under `accelerate launch`: which rows each does, and how that comes together.

Every process holds all weights, unless the run shards them (`training.sharding`). It samples and runs its share of a
step's rollouts, receives those of the others, and goes backward from its share of the loss. Losses divide by the sizes
of the whole step (`Totals`), so the *sum* of the processes' gradients is the gradient of the step: no mean over
processes, which would weigh tokens by where they lie.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState

from dllm_rl.errors import ConfigError

# Variables by which accelerate's launcher passes on what would shard weights or change numbers, and what to do instead.
_SHARDS = "this trainer shards weights itself, where the policy's key `shards` says so. Launch with --multi_gpu."
_REFUSED = {
    "ACCELERATE_USE_FSDP": _SHARDS,
    "ACCELERATE_USE_DEEPSPEED": _SHARDS,
    "ACCELERATE_USE_MEGATRON_LM": _SHARDS,
    "ACCELERATE_USE_PARALLELISM_CONFIG": _SHARDS,
    "ACCELERATE_MIXED_PRECISION": (
        "this trainer computes in the numbers of the policy's key `dtype`. Launch with --mixed_precision no."
    ),
    "ACCELERATE_DYNAMO_BACKEND": "this trainer compiles nothing. Launch with --dynamo_backend no.",
}
# How long a process waits for the others: as long as any self-check, since that one runs in the first alone.
_WAIT = timedelta(hours=12)
T = TypeVar("T")


class Ranks:
    """All processes of a run, as one of them sees them. One process alone is the same with nothing to send."""

    def __init__(self, *, number: int = 0, count: int = 1) -> None:
        self.number, self.count = number, count

    @classmethod
    def of(cls, state: Any) -> Ranks:
        """Those of accelerate's state, a `PartialState`."""
        return cls(number=state.process_index, count=state.num_processes)

    def refuse_shared(self, device: str) -> None:
        """Raise ConfigError where one device is named for several processes, each of which needs its own."""
        kind, _, index = device.partition(":")
        if index and not self.is_alone:
            raise ConfigError(
                f"device={device} was given, and {self.count} processes would share it. Give device={kind}: each takes "
                "one of its own."
            )

    def refuse_shards(self, shards: int, owner: str) -> None:
        """Raise ConfigError where weights are to be sharded over another number of processes than there are."""
        if shards not in (1, self.count):
            running = "one process runs" if self.is_alone else f"{self.count} processes run"
            raise ConfigError(
                f"{owner} has shards={shards}, and {running}. Launch as many: `accelerate launch --multi_gpu "
                f"--num_processes {shards} -m experiments.cli`, followed by the command; or give shards=1, with which "
                "each process holds all weights."
            )

    @property
    def is_first(self) -> bool:
        """True in the process that writes files."""
        return self.number == 0

    @property
    def is_alone(self) -> bool:
        """True where there is nobody to share with."""
        return self.count == 1

    def share(self, size: int) -> slice:
        """This process's part of `size` things in a row; parts differ by one at most."""
        return slice(self.number * size // self.count, (self.number + 1) * size // self.count)

    def gather(self, value: T) -> list[T]:
        """The value of every process, in their order, in every process."""
        if self.is_alone:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """What the first process holds."""
        if self.is_alone:
            return value
        values: list[Any] = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def leave(self) -> None:
        """Part from the others, once all are here; the last thing that a process does.

        One that just ends leaves threads of PyTorch's process group behind, and now and then they abort it (SIGABRT,
        "terminate called without an active exception"), so that a launcher calls a finished run failed.
        """
        if not self.is_alone:
            dist.barrier()
            dist.destroy_process_group()

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes in place; one that no process has stays None."""
        if self.is_alone:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        device = trained[0].device
        has_gradient = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
        has_gradient = has_gradient.to(device)
        dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
        for parameter, is_there in zip(trained, has_gradient.tolist(), strict=True):
            if not is_there:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


ALONE = Ranks()


def processes_beside() -> int:
    """How many processes a launcher started on this machine, this one among them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launched_ranks(devices: Iterable[str] = ()) -> Ranks:
    """The processes that a launcher started together with this one.

    Args:
        devices: Those that policies are loaded on.

    Raises ConfigError where processes cannot work together on such devices here, and where accelerate was told to do
    what it does not do here.
    """
    for name, advice in _REFUSED.items():
        value = os.environ.get(name, "no")
        if value.lower() not in ("no", "false"):
            raise ConfigError(f"accelerate was set to {name}={value}, and {advice}")
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ALONE
    kinds = {name.partition(":")[0] for name in devices} - {"cpu"}
    if not kinds:
        return Ranks.of(PartialState(cpu=True, timeout=_WAIT))
    if kinds != {"cuda"} or not torch.cuda.is_available():
        raise ConfigError(
            f"device={min(kinds)} was given, and several processes were launched; they work together on CPUs, or on "
            f"CUDA devices, of which PyTorch {torch.__version__} finds {torch.cuda.device_count()} here. Launch one "
            "process, or take device=cpu."
        )
    # Gradients go over nccl, rollouts over gloo.
    return Ranks.of(PartialState(backend="cpu:gloo,cuda:nccl", timeout=_WAIT))
