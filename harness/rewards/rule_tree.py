"""OpAgent's rule tree (codefuse-ai/OpAgent, technical report): five rules a step, and a charge for invalid ones.

1. The action failed: charged.
2. It led to another page: not charged.
3. Its target is an enabled control: not charged.
4. Nothing is seen to have changed: charged.
5. It is progress: not charged; otherwise charged.

In the published order rule 3 lets every useless act on a live control pass before rule 4 is asked. The strict order
asks rule 4 in its place, and then rule 5 of all that is left. Departures: a step is a line of a plan; the page is
compared by its controls and not by its pixels; progress (rule 5, a vision-language model in the paper) is that what was
written or chosen stands in the instruction; and an episode without any step earns nothing, so that idleness does not
pay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import Evidence, Step, page_feedback, steps_of
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score

Order = Literal["published", "strict"]
# What a rule says of a step: charged, not charged, or None where the next rule decides.
Verdict = bool | None
Rule = Callable[[Evidence, Step], Verdict]


def failed(episode: Evidence, step: Step) -> Verdict:
    """Rule 1."""
    return None if step.is_ok else True


def changed_page(episode: Evidence, step: Step) -> Verdict:
    """Rule 2: the feedback says so, or the server accepted."""
    return False if step.result.note.startswith(("page: now", "submitted")) else None


def on_enabled_control(episode: Evidence, step: Step) -> Verdict:
    """Rule 3."""
    return False if step.control is not None and not step.control.disabled else None


def without_effect(episode: Evidence, step: Step) -> Verdict:
    """Rule 4."""
    return None if step.has_effect else True


def no_progress(episode: Evidence, step: Step) -> Verdict:
    """Rule 5: what was written or chosen does not stand in the instruction. Acts that set nothing make none."""
    wanted, given = words_of(episode.instruction), words_of(_given(step))
    return not given or not set(given) <= set(wanted)


def opened_more(episode: Evidence, step: Step) -> Verdict:
    """A click that brought new fields, as the feedback says."""
    return False if "new fields:" in page_feedback(step.result) else None


RULES: dict[Order, tuple[Rule, ...]] = {
    "published": (failed, changed_page, on_enabled_control, without_effect, no_progress),
    "strict": (failed, changed_page, without_effect, opened_more, no_progress),
}


def _given(step: Step) -> str:
    """What a step writes or chooses, in words."""
    if step.control is not None and step.verb in ("choose", "check", "uncheck", "click"):
        return step.control.name
    return step.value or ""


def words_of(text: str) -> list[str]:
    """Words and numbers of a text, in lower case."""
    return re.findall(r"\w+", text.lower())


def is_charged(episode: Evidence, step: Step, order: Order) -> bool:
    """Whether the first rule with an opinion charges the step."""
    return next(verdict for rule in RULES[order] if (verdict := rule(episode, step)) is not None)


@register("reward", "rule_tree")
@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTree(Reward):
    """Progress by rules: 1 less `penalty / cap` for every step that the tree charges, at least 0.

    Never a gain in itself: add it to a reward of the outcome (`combined`), which it cannot outweigh there.

    Attributes:
        order: Of the rules.
        penalty: Charge of a step; the example of the paper is .001.
        cap: Most that an episode is charged.
    """

    version: ClassVar[int] = 1
    needs_truth: ClassVar[bool] = False

    order: Order = "published"
    penalty: Annotated[float, Field(gt=0)] = 0.001
    cap: Annotated[float, Field(gt=0)] = 0.1

    def __post_init__(self) -> None:
        if self.penalty > self.cap:
            raise ConfigError(f"penalty={self.penalty:g} is above cap={self.cap:g}; expected at most the cap.")

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Return the share of the cap that was not charged."""
        return [self._scored(episode) for episode in episodes]

    def _scored(self, episode: Evidence) -> Score:
        steps = steps_of(episode)
        num_charged = sum(is_charged(episode, step, self.order) for step in steps)
        value = max(0.0, 1.0 - num_charged * self.penalty / self.cap) if steps else 0.0
        return Score(value=value, claim=value)
