"""The promises that every reward keeps, checked on episodes of one and of two turns, from nothing to success.

`check_reward(reward)` raises `PropertyError` with the name of the property and what happened.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dllm_rl.records.evidence import Evidence
from dllm_rl.records.rollout import Attempt, Completion, Turn
from dllm_rl.records.tasks import ActionResult, Control, FieldResult, GoldField, Observation, Outcome, Task
from dllm_rl.reward import Reward, Score, scores
from dllm_rl.testing.objective import PropertyError

PAGE = Observation(
    titles=("Order",),
    controls=(
        Control(ref="p1.e1", kind="text", name="Name", field="name"),
        Control(ref="p1.e2", kind="select", name="Town", options=("Rome", "Oslo"), field="town"),
        Control(ref="p1.e3", kind="button", name="Send"),
    ),
)
TASK = Task(
    id="check/order-0",
    split="check",
    site="check",
    instruction="Order for Anna in Oslo.",
    gold=(
        GoldField(name="name", kind="text", wanted=("Anna",), label="Name"),
        GoldField(name="town", kind="select", wanted=("Oslo",), label="Town"),
    ),
)
WORDS = "The order went through and everything is correct. SUCCESS"


def attempt(*turns: Sequence[str], values: dict[str, str], is_submitted: bool, words: str = "") -> Attempt:
    """An episode of the small shop.

    Args:
        turns: Lines of each.
        values: What the fields hold at the end.
    """
    fields = tuple(
        FieldResult(
            name=item.name,
            wanted=item.wanted,
            server=(values.get(item.name, ""),) if is_submitted else None,
            dom=(values.get(item.name, ""),),
            is_correct=values.get(item.name) == item.wanted[0],
            is_default=False,
        )
        for item in TASK.gold
    )
    actions = [tuple(_result(number, line) for number, line in enumerate(lines, start=1)) for lines in turns]
    outcome = Outcome(
        task_id=TASK.id,
        is_parsed=not any(action.status == "malformed" for part in actions for action in part),
        is_submitted=is_submitted,
        num_submissions=int(is_submitted),
        fields=fields,
        actions=tuple(action for part in actions for action in part),
        pages_reached=1,
    )
    return Attempt(
        task=TASK,
        turns=tuple(
            Turn(
                observation=PAGE,
                completion=Completion(plan="\n".join([*([words] if words else []), *lines])),
                outcome=replace(outcome, actions=part),
            )
            for lines, part in zip(turns, actions, strict=True)
        ),
        outcome=outcome,
    )


def _result(line: int, text: str) -> ActionResult:
    verb = text.partition(" ")[0]
    if verb not in ("fill", "select", "submit"):
        return ActionResult(line=line, text=text, status="malformed", note=f"expected a verb in {text!r}")
    value = text.partition('"')[2].removesuffix('"')
    if verb == "select" and value not in PAGE.controls[1].options:
        return ActionResult(line=line, text=text, status="failed", note=f'no option "{value}" in p1.e2; 2 options')
    return ActionResult(line=line, text=text, status="ok", note="submitted" if verb == "submit" else f"ok {text[:12]}")


RIGHT = ('fill p1.e1 "Anna"', 'select p1.e2 "Oslo"')
WRONG = ('fill p1.e1 "Karl"', 'select p1.e2 "Rome"')
SEND = "submit p1.e3"
HELD, SPOILT = {"name": "Anna", "town": "Oslo"}, {"name": "Karl", "town": "Rome"}
SUCCESS = attempt((*RIGHT, SEND), values=HELD, is_submitted=True)
NOTHING = attempt((), values={}, is_submitted=False)
ATTEMPTS = (
    SUCCESS,
    attempt(RIGHT, (SEND,), values=HELD, is_submitted=True),
    attempt(RIGHT, values=HELD, is_submitted=False),
    attempt((*WRONG, SEND), values=SPOILT, is_submitted=True),
    attempt((SEND,), values={}, is_submitted=True),
    attempt(("no idea", *RIGHT), values=HELD, is_submitted=False),
    NOTHING,
    Attempt(task=TASK, turns=(), outcome=Outcome(task_id=TASK.id)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCase:
    """A reward, the episodes that it is checked on, and what it says of them."""

    reward: Reward
    episodes: tuple[Evidence, ...]
    found: tuple[Score, ...]


def check_reward(reward: Reward) -> list[str]:
    """Check every property; returns their names. Raises PropertyError at the first that does not hold.

    A model that the reward reads is asked about `Order for Anna in Oslo.` and a page of three controls.
    """
    episodes = tuple(map(evidence_of, ATTEMPTS))
    for name, check in REWARD_PROPERTIES.items():
        try:
            check(RewardCase(reward=reward, episodes=episodes, found=tuple(scores(reward, episodes))))
        except AssertionError as error:
            raise PropertyError(f"reward '{type(reward).__name__}', property '{name}': {error}") from error
    return list(REWARD_PROPERTIES)


def evidence_of(item: Attempt) -> Evidence:
    """What a reward may read of an episode."""
    return Evidence.of(item.task, item.turns, item.outcome)


def in_range(case: RewardCase) -> None:
    """Values and claims lie in [0, 1], components are numbers, and a missing reward has a value of 0."""
    for score in case.found:
        assert 0 <= score.value <= 1, f"a value is {score.value}; expected 0 to 1"
        assert score.claim is None or 0 <= score.claim <= 1, f"a claim is {score.claim}; expected 0 to 1"
        bad = [name for name, value in score.components.items() if not math.isfinite(value)]
        assert not bad, f"the component '{bad[0]}' is not finite"
        assert not score.fault or score.value == 0, (
            f"there is no reward ({score.fault}), yet its value is {score.value}"
        )


def truth_is_withheld(case: RewardCase) -> None:
    """What does not need the truth pays the same whatever the server says, and where it is handed over by mistake."""
    if case.reward.needs_truth:
        return
    denied = [
        replace(item, truth=replace(item.truth, gold=(), outcome=Outcome(task_id="none")))
        for item in case.episodes
        if item.truth is not None
    ]
    for given in (denied, case.episodes):
        _same(case.reward.score(given), case.found, "scores with a truth and without")


def rows_are_independent(case: RewardCase) -> None:
    """The score of an episode does not depend on those that it is scored with, nor on their order."""
    alone = [scores(case.reward, [item])[0] for item in case.episodes]
    _same(alone, case.found, "scores of episodes alone and together")
    turned = scores(case.reward, case.episodes[::-1])[::-1]
    _same(turned, case.found, "scores of episodes in another order")
    assert scores(case.reward, []) == [], "no episodes have no scores"


def deterministic(case: RewardCase) -> None:
    """The same episode has the same score, and no global random state is read or moved."""
    before = (random.getstate(), repr(np.random.get_state()))
    again = scores(case.reward, case.episodes)
    assert before == (random.getstate(), repr(np.random.get_state())), "it draws from a global random state"
    _same(again, case.found, "scores of the same episodes")


def words_do_not_pay(case: RewardCase) -> None:
    """Praise has no influence: beside the actions, in a malformed line, in a value that the feedback quotes."""
    talked = [
        replace(
            item,
            turns=tuple(
                replace(turn, completion=replace(turn.completion, plan=f"{WORDS}\n{turn.completion.plan}"))
                for turn in item.turns
            ),
        )
        for item in ATTEMPTS
    ]
    _same(scores(case.reward, [evidence_of(item) for item in talked]), case.found, "scores after praise of oneself")
    for what, plain, praised in (
        ("two lines that are not actions", "no idea", WORDS),
        ("two values that were refused", 'select p1.e2 "Lima"', 'select p1.e2 "submitted"'),
    ):
        lines = [attempt((text, *RIGHT), values=HELD, is_submitted=False) for text in (plain, praised)]
        one, two = scores(case.reward, [evidence_of(item) for item in lines])
        _same([two], [one], f"scores of {what}")


def claims_without_truth(case: RewardCase) -> None:
    """What does not read the truth says what it takes for success, or the alarms for gaming watch nothing."""
    silent = [score for score in case.found if score.claim is None and not score.fault]
    assert case.reward.needs_truth or not silent, "a score has no claim; give one, such as its value"


def success_pays_most(case: RewardCase) -> None:
    """Nothing earns more than a success, and doing nothing earns nothing that a success does not."""
    if not case.reward.needs_truth:
        return
    (best, nothing) = scores(case.reward, [evidence_of(SUCCESS), evidence_of(NOTHING)])
    most = max(score.value for score in case.found)
    assert best.value >= most - 1e-9, f"a success earns {best.value:.3g}, and something else {most:.3g}"
    assert nothing.value < best.value, f"nothing and a success both earn {best.value:.3g}"


def schedules_hold(case: RewardCase) -> None:
    """At every training step it keeps the range, and says what it is made of in plain data."""
    for step in (0, 1, 10_000):
        reward = case.reward.at(step)
        in_range(replace(case, found=tuple(scores(reward, case.episodes))))
        _is_plain(reward.ingredients())


def _is_plain(ingredients: object) -> None:
    try:
        json.dumps(ingredients, default=os.fspath)
    except TypeError as error:
        raise AssertionError(f"what it is made of is not plain data: {error}") from None


def _same(found: Sequence[Score], wanted: Sequence[Score], what: str) -> None:
    for one, two in zip(found, wanted, strict=True):
        is_close = math.isclose(one.value, two.value, abs_tol=1e-6) and one.fault == two.fault
        is_close = is_close and math.isclose(one.claim or 0.0, two.claim or 0.0, abs_tol=1e-6)
        assert is_close, f"{what} differ: {_shown(one)} and {_shown(two)}"


def _shown(score: Score) -> str:
    return f"{score.value:.6g}" if score.claim is None else f"{score.value:.6g} (claim {score.claim:.6g})"


REWARD_PROPERTIES: dict[str, Callable[[RewardCase], None]] = {
    check.__name__: check
    for check in (
        in_range,
        truth_is_withheld,
        rows_are_independent,
        deterministic,
        words_do_not_pay,
        claims_without_truth,
        success_pays_most,
        schedules_hold,
    )
}
