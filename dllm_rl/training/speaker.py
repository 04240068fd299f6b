"""A policy with the sampler that draws from it: prompts become completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dllm_rl.policies.base import BasePolicy
from dllm_rl.protocols import Sampler
from dllm_rl.records.rollout import Completion
from dllm_rl.records.types import Prompts, SampledRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """Who writes completions."""

    policy: BasePolicy
    sampler: Sampler

    def at_temperature(self, temperature: float) -> Speaker:
        """The same policy, drawn at another temperature; 0 is greedy."""
        sampler: Any = self.sampler
        return replace(self, sampler=replace(sampler, temperature=temperature))

    def say(self, prompts: Prompts, texts: Sequence[str], *, seed: int) -> list[Completion]:
        """Sample one completion a prompt.

        Args:
            prompts: The texts as token ids, and what a turn is begun with.
            texts: What they say.
            seed: Names the noise, with the ids of the rows.
        """
        completions = self.sampler.generate(self.policy, prompts, seed=seed)
        lengths = self.policy.canvas.visible(completions.ids).sum(dim=1).tolist()
        return [
            Completion(
                plan=self.policy.plan_of(ids),
                prompt=text,
                num_tokens=length,
                sampled=SampledRow(prompts=prompts, completions=completions, row=row),
            )
            for row, (text, ids, length) in enumerate(zip(texts, completions.ids, lengths, strict=True))
        ]
