"""Form: the share of written lines that are actions. A gate for other rewards, and no aim of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.records.evidence import Evidence
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score


@register("reward", "well_formed")
@dataclass(frozen=True, slots=True, kw_only=True)
class WellFormed(Reward):
    """1 where every line is an action, 0 where none is or nothing was written."""

    version: ClassVar[int] = 1
    needs_truth: ClassVar[bool] = False

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Return the share of lines that are actions, which is a claim where nothing else is paid."""
        shares = [_share(episode) for episode in episodes]
        return [Score(value=share, claim=share) for share in shares]


def _share(episode: Evidence) -> float:
    lines = episode.actions
    return sum(line.status != "malformed" for line in lines) / len(lines) if lines else 0.0
