"""One sampler on one policy, as the properties of `dllm_rl.testing.sampler` see it, and ways to watch its model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.testing.policies import prompts_of

ROWS = tuple(range(6))


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerCase:
    """One sampler class on one policy.

    options: passed to every instance.
    """

    sampler_class: Any
    policy: BasePolicy
    options: dict[str, Any]
    _kept: dict[float, Completions] = field(default_factory=dict, repr=False, compare=False)

    def draw(
        self,
        rows: tuple[int, ...] = (0, 1, 2),
        *,
        seed: int = 3,
        temperature: float = 1.0,
        prompts: Prompts | None = None,
        **options: Any,
    ) -> Completions:
        """Completions of these row ids, or of these prompts; options go before the case's own."""
        sampler = self.sampler_class(temperature=temperature, **{**self.options, **options})
        given = prompts_of(self.policy, rows) if prompts is None else prompts
        return sampler.generate(self.policy, given, seed=seed)

    def kept(self, temperature: float = 1.0) -> Completions:
        """Completions of `ROWS`, drawn once for all properties that only read them."""
        if temperature not in self._kept:
            self._kept[temperature] = self.draw(ROWS, temperature=temperature)
        return self._kept[temperature]

    @property
    def has_steps(self) -> bool:
        """Whether the sampler takes a number of denoising steps."""
        return "num_steps" in {field.name for field in fields(self.sampler_class)}

    @property
    def has_grammar(self) -> bool:
        """Whether the case draws under the grammar."""
        return bool(self.options.get("grammar"))


@contextmanager
def fed_to(policy: BasePolicy) -> Iterator[list[Int[Tensor, "b t"]]]:
    """The ids of every forward of the model while it is open."""
    calls: list[Tensor] = []

    def keep(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls.append(kwargs["input_ids"].clone())

    handle = policy.model.register_forward_hook(keep, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def ending(policy: BasePolicy, probability: float) -> Iterator[None]:
    """While it is open, the model gives EOS this probability everywhere, whatever it reads; 0 means never."""
    eos = policy.canvas.eos_id

    def change(module: Any, args: Any, output: Any) -> Any:
        logits = output.logits.clone()
        logits[..., eos] = -torch.inf
        total = logits.logsumexp(dim=-1)
        logits[..., eos] = total + math.log(probability / (1 - probability)) if probability else total - 1e4
        output.logits = logits
        return output

    handle = policy.model.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()
