"""The starting points that `dllm-rl new` writes: a working objective or unmasking rule, to be changed into another."""

from __future__ import annotations

from pathlib import Path

from dllm_rl.errors import ConfigError

_OBJECTIVE = '''\
"""{title} (paper id, equation): one sentence on what the method does, and how it differs from GRPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dllm_rl.process import ForwardProcess
from dllm_rl.registry import register
from dllm_rl.types import Loss, LossInputs, Rollouts, Views
from objectives import BelowOne, Clip, Method, NonNegative, k3, mean_of_sequences, token_terms


@register("objective", "{name}")
@dataclass(frozen=True, slots=True, kw_only=True)
class {title}(Method):
    """What a class of this name promises. Its fields are the options that a preset may set."""

    name: ClassVar[str] = "{name}"
    paper: ClassVar[str] = ""
    level: ClassVar[str] = "token"

    clip_low: BelowOne = 0.2
    clip_high: NonNegative = 0.2

    def views(self, rollouts: Rollouts, process: ForwardProcess, generator: torch.Generator) -> Views:
        """Which corrupted copies are scored: here one fully hidden canvas (exact for the autoregressive family)."""
        return process.one_step(rollouts, generator)

    def loss(self, inputs: LossInputs) -> Loss:
        """The loss as a formula, in the letters of the paper."""
        terms = token_terms(inputs, Clip(low=self.clip_low, high=self.clip_high), self.beta, k3)
        return Loss(value=mean_of_sequences(inputs.rollouts, terms.entries), metrics=terms.metrics)
'''


_SAMPLER = '''\
"""{title} (paper id): one sentence on which positions are written first, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from dllm_rl.registry import register
from samplers import StepContext, UnmaskingRule


@register("sampler", "{name}")
@dataclass(frozen=True, slots=True, kw_only=True)
class {title}(UnmaskingRule):
    """What a class of this name promises. Its fields are the options that a preset may set.

    sharpness: weight of the log-odds against the entropy.
    """

    name: ClassVar[str] = "{name}"
    paper: ClassVar[str] = ""
    sharpness: float = 1.0

    def choose(self, context: StepContext) -> Bool[Tensor, "b n"]:
        """Return the open positions to unmask in this step; tokens are drawn there afterwards."""
        return context.best(self.sharpness * context.log_odds - context.entropy, context.quota)
'''


def write_objective(name: str, folder: Path) -> Path:
    """Write `folder/<name>.py`. Raises where the file exists or the folder does not."""
    return _write(_OBJECTIVE, name, folder)


def write_sampler(name: str, folder: Path) -> Path:
    """Write `folder/<name>.py`. Raises where the file exists or the folder does not."""
    return _write(_SAMPLER, name, folder)


def _write(template: str, name: str, folder: Path) -> Path:
    path = folder / f"{name}.py"
    if not folder.is_dir():
        raise ConfigError(f"no folder '{folder}': run this in a checkout of dllm_rl, or give --folder")
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another name")
    title = "".join(part.capitalize() for part in name.split("_"))
    path.write_text(template.format(name=name, title=title))
    return path
