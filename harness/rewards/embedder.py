"""Embed-RL (arXiv 2602.13823): a frozen embedder pays for a state that is nearer to its instruction than to others.

The published outcome reward is a rank gate times a margin over negatives, of which the nearest weigh most. Departures:
what is embedded is the executed state of the page and not the policy's text; the negatives are kept instructions and
counterfactual ones in place of the other prompts of the batch, so that the score of an episode does not depend on
others; and a malformed line or an echo of the instruction earns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from dllm_rl.files import sha256
from dllm_rl.records.evidence import Evidence, executed_state, render_state
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score
from harness.rewards.form import has_form
from harness.rewards.towers import Clauses, Towers, clauses_of, counterfactuals, read_towers


@register("reward", "embedder")
@dataclass(frozen=True, kw_only=True)
class Embedder(Reward):
    """Gate x margin: 1 where no other instruction is nearer to the state, times how much nearer the right one is.

    Attributes:
        file: What `dllm-rl judge embedder` wrote.
        pays: `both` as published, or one of the two alone.
        negative_temperature: Of the softmax that weighs the negatives; a large one weighs all alike.
        max_echo: Longest run of the instruction that one field may hold, as a share of the instruction.
    """

    version: ClassVar[int] = 2
    needs_truth: ClassVar[bool] = False

    file: str
    pays: Literal["both", "gate", "margin"] = "both"
    negative_temperature: Annotated[float, Field(gt=0)] = 0.05
    max_echo: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        # A file that cannot be read is refused before anything runs.
        _ = self._towers

    @cached_property
    def _towers(self) -> Towers:
        return read_towers(Path(self.file), version=self.version)

    @cached_property
    def _others(self) -> Float[np.ndarray, "n d"]:
        return self._towers.instruction.embed(self._towers.others)

    def ingredients(self) -> list[Any]:
        """Digest of the file."""
        return [sha256(Path(self.file))]

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Compare each state with its instruction and with others."""
        states = [
            render_state(executed_state(item)) if has_form(item, max_echo=self.max_echo) else "" for item in episodes
        ]
        pairs = {(item.instruction, state) for item, state in zip(episodes, states, strict=True) if state}
        values: dict[tuple[str, str], float] = {}
        for instruction in sorted({text for text, _ in pairs}):
            own = sorted(state for text, state in pairs if text == instruction)
            values |= zip([(instruction, state) for state in own], self._values(instruction, own), strict=True)
        found = [values.get((item.instruction, state), 0.0) for item, state in zip(episodes, states, strict=True)]
        return [Score(value=value, claim=value) for value in found]

    def _values(self, instruction: str, states: Sequence[str]) -> list[float]:
        """What states are worth for one instruction."""
        asked, towers = clauses_of(instruction), self._towers
        if not asked:
            return [0.0] * len(states)
        near = towers.state.embed(map(clauses_of, states))
        right = near @ towers.instruction.embed([asked])[0]
        wrong = near @ self._negatives(asked).T
        weights = np.exp((wrong - wrong.max(axis=1, keepdims=True)) / self.negative_temperature)
        margin = right - (weights * wrong).sum(axis=1) / weights.sum(axis=1)
        gate = right > wrong.max(axis=1)
        paid = {"both": gate * margin, "gate": gate, "margin": margin}[self.pays]
        return [float(value) for value in np.clip(paid, 0.0, 1.0) + 0.0]

    def _negatives(self, asked: Clauses) -> Float[np.ndarray, "n d"]:
        """Instructions of training, and this one with one wish in place of another each."""
        towers = self._towers
        kept = [row for row, text in enumerate(towers.others) if text != asked]
        changed = counterfactuals(asked, towers.wishes)
        return np.concatenate([self._others[kept], towers.instruction.embed(changed)])
