"""The rule judge: the page says that it worked. Checkers of web benchmarks are often like it; wrong values pass it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import Evidence, page_feedback
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score

SUCCESS = r"\b(submitted|thank you|thanks for|success(ful(ly)?)?|confirmed|confirmation|received|completed?)\b"
FAILURE = r"\b(rejected|validation|error|failed|invalid|denied|not submitted|unsuccessful)\b"


@register("reward", "success_words")
@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessWords(Reward):
    """1 where the last feedback that says either says success, else 0.

    What the policy wrote does not count: values that the feedback quotes are left out, and a line that failed can say
    failure alone.

    Attributes:
        success: Regular expression of what a page says that took what was sent.
        failure: Of what a page says that refused it; where both match, it counts.
    """

    version: ClassVar[int] = 2
    needs_truth: ClassVar[bool] = False

    success: str = SUCCESS
    failure: str = FAILURE

    def __post_init__(self) -> None:
        for name in ("success", "failure"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise ConfigError(f"{name}={getattr(self, name)!r} is not a regular expression: {error}.") from None

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Return 1 or 0, which is a claim."""
        verdicts = [self._verdict(item) for item in episodes]
        return [Score(value=verdict, claim=verdict) for verdict in verdicts]

    def _verdict(self, episode: Evidence) -> float:
        for text, may_succeed in reversed(_feedback(episode)):
            if re.search(self.failure, text, re.IGNORECASE):
                return 0.0
            if may_succeed and re.search(self.success, text, re.IGNORECASE):
                return 1.0
        return 0.0


def _feedback(episode: Evidence) -> list[tuple[str, bool]]:
    """What pages and feedback said, in order, and whether it can say success.

    Of each turn the title of its page, then the notes on its lines. The title of the first page, such as "Complete your
    registration", says what is to be done and nothing of what was.
    """
    said: list[tuple[str, bool]] = []
    for turn in episode.turns:
        title = turn.observation.title
        said += [(title, True)] if title != episode.turns[0].observation.title else []
        said += [(page_feedback(action), action.status == "ok") for action in turn.actions]
    return said
