"""Rewards keep their promises; the truth is recorded whatever is paid; words and lost episodes earn nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest

from dllm_rl import options, registry
from dllm_rl.episodes import given, oracle, play
from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import Evidence, as_planned, executed_state, steps_of
from dllm_rl.records.rollout import Completion, rewarded
from dllm_rl.records.tasks import ActionResult, Control, Fault, Observation, Outcome
from dllm_rl.reward import Reward, Score, scores
from dllm_rl.session import Session
from dllm_rl.testing import REWARD_PROPERTIES, PropertyError, check_reward
from dllm_rl.testing.reward import ATTEMPTS, HELD, NOTHING, RIGHT, SEND, SUCCESS, attempt, evidence_of
from dllm_rl.training.gaming import reward_metrics
from harness.rewards import Combined, RuleTree, Success
from tests.frozen import REWARD_OPTIONS, WITH_MODELS


@pytest.mark.parametrize("name", [name for name in registry.names("reward") if name not in WITH_MODELS])
def test_a_registered_reward_keeps_every_promise(name: str) -> None:
    assert check_reward(registry.build("reward", name, REWARD_OPTIONS.get(name))) == list(REWARD_PROPERTIES)


@dataclass
class Liar(Reward):
    """Breaks one promise at a time."""

    version: ClassVar[int] = 1
    needs_truth: ClassVar[bool] = False
    how: str = ""

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        if self.how == "in_range":
            return [Score(value=2.0) for _ in episodes]
        if self.how == "rows_are_independent":
            return [Score(value=1 / len(episodes)) for _ in episodes]
        if self.how == "truth_is_withheld":
            return [_claim(float(item.truth is not None)) for item in episodes]
        if self.how == "deterministic":
            random.random()
        if self.how == "words_do_not_pay":
            return [_claim(float("submitted" in repr(item.actions[:1]))) for item in episodes]
        if self.how == "claims_without_truth":
            return [Score(value=0.5) for _ in episodes]
        return [_claim(0.5) for _ in episodes]

    def ingredients(self) -> list[Any]:
        return [object()] if self.how == "schedules_hold" else []


def _claim(value: float) -> Score:
    return Score(value=value, claim=value)


class Flat(Liar):
    """Reads the truth and pays everything alike."""

    needs_truth: ClassVar[bool] = True


@pytest.mark.parametrize("how", [name for name in REWARD_PROPERTIES if name != "success_pays_most"])
def test_a_broken_promise_is_named(how: str) -> None:
    with pytest.raises(PropertyError, match=how):
        check_reward(Liar(how=how))


def test_a_success_that_is_paid_like_anything_is_named() -> None:
    with pytest.raises(PropertyError, match="success_pays_most"):
        check_reward(Flat())


def test_a_reward_without_the_truth_never_sees_it() -> None:
    assert {score.value for score in scores(Liar(how="truth_is_withheld"), [evidence_of(SUCCESS)])} == {0.0}


def test_the_truth_is_recorded_whatever_is_paid() -> None:
    """An accepted form is a success in the row though the reward pays nothing for it; both stand side by side."""
    row = rewarded(registry.build("reward", "well_formed"), [SUCCESS])[0].to_row()
    assert (row["reward"], row["success"], row["field_accuracy"]) == (1.0, True, 1.0)
    spoilt = replace(SUCCESS, outcome=replace(SUCCESS.outcome, is_submitted=False))
    row = rewarded(registry.build("reward", "well_formed"), [spoilt])[0].to_row()
    assert (row["reward"], row["success"], row["progress"]) == (1.0, False, 0.0)


def test_a_judge_that_does_not_answer_loses_the_episode_and_is_no_zero() -> None:
    class Silent(Liar):
        def score(self, episodes: Sequence[Evidence]) -> list[Score]:
            return [Score(fault="no answer within 3 s") for _ in episodes]

    (rollout,) = rewarded(Silent(), [SUCCESS])
    assert not rollout.outcome.is_valid and rollout.outcome.fault is Fault.JUDGE
    assert rollout.outcome.fault_reason == "no reward: no answer within 3 s"
    assert "the judge gave none" in rollout._repr_html_()


def test_a_judge_s_faults_are_counted_apart_from_the_environment_s() -> None:
    class Moody(Liar):
        def score(self, episodes: Sequence[Evidence]) -> list[Score]:
            return [Score(fault="no answer") if row % 2 else _claim(1.0) for row, _ in enumerate(episodes)]

    lost = replace(NOTHING, outcome=Outcome(task_id="t", fault=Fault.ENVIRONMENT))
    found = rewarded(Moody(), [SUCCESS, SUCCESS, NOTHING, lost])
    assert reward_metrics(found, [0] * 4) == pytest.approx(
        {"claim": 1.0, "reward_gap": 0.5, "rank_agreement": 0.0, "rank_groups": 1.0, "judge_fault_share": 1 / 3}
    )
    assert "judge_fault_share" not in reward_metrics(rewarded(Success(), [SUCCESS, lost]), [0, 0])


def test_a_lost_episode_is_not_shown_to_the_reward() -> None:
    class Strict(Liar):
        def score(self, episodes: Sequence[Evidence]) -> list[Score]:
            assert len(episodes) == 1
            return [Score(value=1.0)]

    lost = replace(NOTHING, outcome=Outcome(task_id="t", fault=Fault.ENVIRONMENT))
    assert [item.reward.value for item in rewarded(Strict(), [lost, SUCCESS])] == [0.0, 1.0]


def test_evidence_holds_no_words_and_reads_the_fields_that_were_set() -> None:
    episode = evidence_of(attempt(("I did it all", *RIGHT, 'fill p1.e9 "x"'), (SEND,), values=HELD, is_submitted=True))
    assert "I did it all" not in repr(replace(episode, truth=None))
    assert [(entry.label, entry.value) for entry in executed_state(episode)] == [("Name", "Anna"), ("Town", "Oslo")]
    assert [step.has_effect for step in steps_of(episode)] == [False, True, True, True, True]


def test_the_answer_of_an_episode_is_kept_apart_from_its_actions() -> None:
    """An errand may ask for an answer alone, which no reward could judge without it."""

    def evidence(*lines: str) -> Evidence:
        actions = tuple(ActionResult(line=at, text=text, status="ok", note="done") for at, text in enumerate(lines, 1))
        turn = replace(SUCCESS.turns[0], outcome=replace(SUCCESS.outcome, actions=actions))
        return Evidence.of(SUCCESS.task, (turn,), SUCCESS.outcome)

    told = evidence('note "at nine"', 'done "9:15"').without_truth()
    assert told.answer == "9:15" and [action.text for action in told.actions] == ["note", "done"]
    assert (evidence("done").answer, evidence('note "9:15"').answer, evidence_of(SUCCESS).answer) == ("", None, None)


def test_the_state_follows_clicks_several_values_and_what_a_later_page_shows() -> None:
    page = Observation(
        titles=("Order",),
        controls=(
            Control(ref="p1.e1", kind="radio", name="Red", group="Colour", field="colour"),
            Control(ref="p1.e2", kind="radio", name="Blue", group="Colour", field="colour"),
            Control(ref="p1.e3", kind="multiselect", name="Extras", options=("Rack", "Bell"), field="extras"),
            Control(ref="p1.e4", kind="checkbox", name="Gift", field="gift"),
            Control(ref="p1.e5", kind="text", name="Note", field="note", value="old"),
        ),
    )
    lines = (
        "click p1.e1",
        "choose p1.e2",
        'select p1.e3 "Rack"',
        'select p1.e3 "Bell"',
        "click p1.e4",
        'fill p1.e5 ""',
    )
    state = executed_state(as_planned("x", page, "\n".join(lines)))
    assert [(entry.label, entry.value) for entry in state] == [
        ("Colour", "Blue"),
        ("Extras", "Rack"),
        ("Extras", "Bell"),
        ("Gift", "checked"),
    ]
    twice = as_planned("x", page, "click p1.e4\nclick p1.e4")
    assert executed_state(twice) == [] and [step.has_effect for step in steps_of(twice)] == [True, True]
    first = as_planned("x", page, 'fill p1.e5 "new"').turns[0]
    refused = [step.before for step in steps_of(Evidence(instruction="x", turns=(first, first)))]
    assert refused == ["old", "old"], "the second page shows that the value did not stay"


def test_shaping_never_outweighs_the_base() -> None:
    """Over all episodes and training steps, the best failure earns less than the worst success."""
    terms = [{"reward": "rule_tree", "weight": {"start": 0.6, "end": 0.1, "steps": 10}}, {"reward": "well_formed"}]
    reward = registry.build("reward", "combined", {"base": {"reward": "outcome"}, "shaping": terms})
    episodes = list(map(evidence_of, ATTEMPTS))
    truth = [item.outcome.is_success for item in ATTEMPTS]
    for step in (0, 5, 100):
        paid = [score.value for score in scores(reward.at(step), episodes)]
        worst = min(value for value, is_success in zip(paid, truth, strict=True) if is_success)
        assert worst > max(value for value, is_success in zip(paid, truth, strict=True) if not is_success)
    with pytest.raises(ConfigError, match=r"sum to 1\.2; expected less than 1"):
        registry.build(
            "reward", "combined", {"base": {"reward": "outcome"}, "shaping": [{"reward": "rule_tree", "weight": 1.2}]}
        )


def test_a_ramp_changes_the_weight_and_evaluation_takes_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shaping = [{"reward": "well_formed", "weight": {"start": 0.5, "end": 0.0, "steps": 4}}]
    reward = registry.build("reward", "combined", {"base": {"reward": "outcome"}, "shaping": shaping})
    failure = [evidence_of(ATTEMPTS[2])]
    assert [scores(reward.at(step), failure)[0].value for step in (0, 2, 4, 9)] == pytest.approx([1 / 3, 0.2, 0, 0])
    assert scores(reward, failure)[0].value == 0.0
    parts = [reward.at(step)._parts[1] for step in (0, 1)]
    assert parts[0] is parts[1], "a part that holds a model is not made anew at every step"
    made = []
    monkeypatch.setattr(registry, "build", lambda *given, **options: made.append(given))
    assert reward.at(3).shaping[0].weight == 0.125 and not made


def test_a_gate_closes_on_lines_that_are_no_action() -> None:
    gates = [{"reward": "well_formed", "at_least": 1.0}]
    reward = registry.build("reward", "combined", {"base": {"reward": "rule_tree"}, "gates": gates})
    found = scores(reward, [evidence_of(SUCCESS), evidence_of(ATTEMPTS[5])])
    assert [score.value for score in found] == [1.0, 0.0]
    assert [score.components["gates"] for score in found] == [1.0, 0.0]


def test_shaping_never_outweighs_a_success_that_the_gates_let_through() -> None:
    """A gate that closes on a success pays it less than a failure: the condition that `Combined` states."""
    options = {
        "base": {"reward": "outcome"},
        "shaping": [{"reward": "rule_tree"}],
        "gates": [{"reward": "well_formed"}],
    }
    stray = attempt(("no idea", *RIGHT, SEND), values=HELD, is_submitted=True)
    assert stray.outcome.is_success
    found = scores(registry.build("reward", "combined", options), list(map(evidence_of, (SUCCESS, ATTEMPTS[3], stray))))
    assert found[0].value == 1.0 > found[1].value > found[2].value == 0.0


def test_a_closed_gate_takes_the_claim_too() -> None:
    """What is audited is what is paid: a claim behind a closed gate is none."""
    gates = [{"reward": "well_formed", "at_least": 1.0}]
    for base, wanted in (("success_words", [1.0, 0.0]), ("outcome", [None, None])):
        reward = registry.build("reward", "combined", {"base": {"reward": base}, "gates": gates})
        spoilt = evidence_of(attempt(("no idea", *RIGHT, SEND), values=HELD, is_submitted=True))
        assert [score.claim for score in scores(reward, [evidence_of(SUCCESS), spoilt])] == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": {"reward": "outcom"}, "shaping": [{"reward": "rule_tree"}]}, "Did you mean 'outcome'"),
        ({"base": {"reward": "outcome"}}, "neither `shaping` nor `gates`"),
        ({"base": {"reward": "outcome"}, "gates": [{"reward": "well_formed", "atleast": 1}]}, "gates"),
        ({"base": {"reward": "outcome"}, "shaping": [{"reward": "rule_tree", "options": {"order": "x"}}]}, "order"),
    ],
)
def test_a_wrong_composition_is_refused_before_anything_runs(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.build("reward", "combined", options)


def test_a_part_that_needs_what_the_environment_pays_needs_it_of_the_whole() -> None:
    for base, part in (("earned", "rule_tree"), ("outcome", "earned"), ("outcome", "rule_tree")):
        reward = registry.build("reward", "combined", {"base": {"reward": base}, "shaping": [{"reward": part}]})
        assert reward.needs_return == ("earned" in (base, part))


def test_results_are_keyed_by_the_rewards_that_a_reward_is_made_of() -> None:
    plain, strict = (
        Combined(**options.resolved(Combined, {"base": {"reward": "outcome"}, "shaping": [part]}, owner="reward"))
        for part in ({"reward": "rule_tree"}, {"reward": "rule_tree", "options": {"order": "strict"}})
    )
    assert json.dumps(plain.ingredients(), default=str) != json.dumps(strict.ingredients(), default=str)
    assert plain.ingredients()[0][0] == {"name": "outcome", "version": 1, "options": {}}
    assert Success().ingredients() == []
    weights = [{"start": 0.2, "end": 0.1, "steps": 5}, {"start": 0.2, "end": 0.1, "steps": 6}, 0.2]
    parts = [{"base": {"reward": "outcome"}, "shaping": [{"reward": "rule_tree", "weight": item}]} for item in weights]
    parts += [
        {"base": {"reward": "outcome"}, "gates": [{"reward": "rule_tree", "at_least": item}]} for item in (0.5, 1)
    ]
    made = [json.dumps(registry.build("reward", "combined", options).ingredients()) for options in parts]
    assert len(set(made)) == len(parts)


def charges(order: str, *turns: Sequence[str], **replaced: str) -> int:
    """Number of charged steps. replaced: notes of actions, by line number."""
    item = attempt(*turns, values={}, is_submitted=False)
    noted = [
        tuple(replace(action, note=replaced.get(f"line{action.line}", action.note)) for action in turn.outcome.actions)
        for turn in item.turns
    ]
    changed = tuple(
        replace(turn, outcome=replace(turn.outcome, actions=actions))
        for turn, actions in zip(item.turns, noted, strict=True)
    )
    reward = RuleTree(order=order, penalty=0.01, cap=1.0)  # type: ignore[arg-type]
    (score,) = scores(reward, [evidence_of(replace(item, turns=changed))])
    return round((1 - score.value) * 100)


def test_the_rule_tree_charges_in_its_published_order() -> None:
    assert charges("published", RIGHT) == charges("strict", RIGHT) == 0
    # Rule 1: lines that fail or are not actions.
    assert charges("published", ("no idea", *RIGHT)) == charges("strict", ("no idea", *RIGHT)) == 1
    # Rule 3 lets useless acts on live controls pass where it comes first: the same value again, a value not asked for.
    again = (*RIGHT, RIGHT[0])
    assert (charges("published", again), charges("strict", again)) == (0, 1)
    assert (charges("published", ('fill p1.e1 "Karl"',)), charges("strict", ('fill p1.e1 "Karl"',))) == (0, 1)
    # Rule 2: a click that leads to another page is progress by itself; one without any effect is not.
    for note, wanted in (
        ("page: now 2", (0, 0)),
        ("ok submit p1.e3; no visible change", (0, 1)),
        ("submitted", (0, 0)),
    ):
        assert (charges("published", (SEND,), line1=note), charges("strict", (SEND,), line1=note)) == wanted


def test_charges_add_up_to_the_cap_and_idleness_earns_nothing() -> None:
    item = evidence_of(attempt(("no",) * 3, values={}, is_submitted=False))
    assert scores(RuleTree(penalty=0.05, cap=0.1), [item])[0].value == 0.0
    assert scores(RuleTree(), [item])[0].value == pytest.approx(0.97)
    assert scores(RuleTree(), [evidence_of(NOTHING)])[0].value == 0.0
    with pytest.raises(ConfigError, match="above cap"):
        RuleTree(penalty=1.0)


def test_a_run_in_a_toy_records_both(tmp_path) -> None:
    """Gold plans of a text environment under a composed reward, through the path that training takes."""
    reward = registry.build("reward", "combined", REWARD_OPTIONS["combined"])
    with Session(registry.build("environment", "toy_copy")) as session:
        tasks = session.tasks("val")[:2]
        gold = play(session, reward, tasks, oracle(session))
        empty = play(session, reward, tasks, given([Completion(plan="")] * 2))
    assert all(item.to_row()["success"] and item.reward.components["outcome"] == 1.0 for item in gold)
    assert all(not item.to_row()["success"] and item.reward.value == 0.0 for item in empty)
