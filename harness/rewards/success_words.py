"""The rule judge: the page says that it worked. Checkers of web benchmarks are often like it; wrong values pass it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import Evidence
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score

SUCCESS = r"\b(submitted|thank you|thanks for|success(ful(ly)?)?|confirmed|confirmation|received|completed?)\b"
FAILURE = r"\b(rejected|validation|error|failed|invalid|denied|not submitted|unsuccessful)\b"


@register("reward", "success_words")
@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessWords(Reward):
    """1 where the last feedback that says either says success, else 0.

    Attributes:
        success: Regular expression of what a page says that took what was sent.
        failure: Of what a page says that refused it; where both match, it counts.
    """

    version: ClassVar[int] = 1
    needs_truth: ClassVar[bool] = False

    success: str = SUCCESS
    failure: str = FAILURE

    def __post_init__(self) -> None:
        for name in ("success", "failure"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ConfigError(f"{name}={getattr(self, name)!r} is no regular expression: {error}.") from None

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Return 1 or 0, which is a claim."""
        verdicts = [self._verdict(item) for item in episodes]
        return [Score(value=verdict, claim=verdict) for verdict in verdicts]

    def _verdict(self, episode: Evidence) -> float:
        for text in reversed(heard(episode)):
            if re.search(self.failure, text, re.IGNORECASE):
                return 0.0
            if re.search(self.success, text, re.IGNORECASE):
                return 1.0
        return 0.0


def heard(episode: Evidence) -> list[str]:
    """What pages and feedback said, in order: the title of each turn's page, then the notes on its lines."""
    said: list[str] = []
    for turn in episode.turns:
        said += turn.observation.titles[-1:]
        said += [action.note for action in turn.actions]
    return said
