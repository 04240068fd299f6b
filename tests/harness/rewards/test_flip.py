"""FLIP: the published F1 and what it misses, baseline, echo and form guards; any family learns to invert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import as_planned, executed_state, render_state
from dllm_rl.records.words import WEIGHTS_FILE, weights_file, word_weights, words
from dllm_rl.reward import scores
from dllm_rl.testing import check_reward
from dllm_rl.testing.reward import ATTEMPTS, HELD, PAGE, RIGHT, SEND, WRONG, attempt, evidence_of
from harness.rewards.flip import Flip
from harness.rewards.similarity import Fields, Idf, Words, bag_f1, longest_echo, similarity_named

TEMPLATE = "Order for {name} in {town}."


@dataclass
class Perfect:
    """Writes the template with the values of the state, and something usual where there are none."""

    version: ClassVar[int] = 1
    knows_likelihood: ClassVar[bool] = False
    folder: ClassVar[Path] = Path()

    def write(self, states: Sequence[str]) -> list[str]:
        pairs = [dict(line.split(": ", 1) for line in state.split("\n") if line) for state in states]
        return [TEMPLATE.format(name=item.get("Name", "someone"), town=item.get("Town", "somewhere")) for item in pairs]

    def ingredients(self) -> list[Any]:
        return ["perfect"]


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch) -> str:
    registry.discover("inverter")
    monkeypatch.setitem(registry._REGISTRY, "inverter", {**registry._REGISTRY["inverter"], "perfect": Perfect})
    return "perfect"


def test_word_f1_is_the_published_one() -> None:
    assert words("The  Cat, sat on a MAT!") == ["cat", "sat", "on", "mat"]
    assert bag_f1(words("a cat sat on the mat"), words("the cat sat")) == pytest.approx(2 / 3)
    assert Words()("x y", "z") == 0.0 and Words()("x y", "y x") == 1.0


def test_swapped_values_pass_words_and_not_fields() -> None:
    wanted, swapped = "from: Rome; to: Oslo", "from: Oslo; to: Rome"
    assert Words()(wanted, swapped) == 1.0
    assert Fields()(wanted, swapped) < 0.8 < Fields()(wanted, "to: Oslo; from: Rome")


def test_rare_words_weigh_more() -> None:
    idf = Idf(weights=word_weights(f"please order for {name}" for name in ("Anna", "Karl", "Mia", "Omar")))
    wanted, template, value = "please order for Anna", "please order for Karl", "Anna"
    assert Words()(wanted, template) > Words()(wanted, value)
    assert idf(wanted, template) < idf(wanted, value)


def test_idf_needs_its_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which training an inverter writes"):
        similarity_named("idf", tmp_path)
    (tmp_path / WEIGHTS_FILE).write_text(weights_file(["order for Anna", "order"])[WEIGHTS_FILE])
    assert similarity_named("idf", tmp_path)("Anna", "Anna") == pytest.approx(1.0)


def test_the_longest_shared_run_of_words() -> None:
    assert longest_echo("send it to Anna in Oslo", "it to Anna") == pytest.approx(3 / 6)
    assert longest_echo("", "x") == 0.0


def test_flip_keeps_every_promise(perfect: str) -> None:
    assert check_reward(Flip(inverter=perfect))


def test_right_values_earn_one_and_the_template_earns_nothing(perfect: str) -> None:
    """The blank page's instruction shares all words but the values: no plan earns by them."""
    reward = Flip(inverter=perfect, similarity="words")
    nothing_right = attempt(('fill p1.e1 "zzz"', 'select p1.e2 "yyy"'), values={}, is_submitted=True)
    found = scores(reward, [evidence_of(item) for item in (ATTEMPTS[0], ATTEMPTS[3], nothing_right)])
    assert [score.value for score in found] == pytest.approx([1.0, 0.0, 0.0])
    assert [score.claim for score in found] == [score.value for score in found]


def test_what_is_no_action_or_an_echo_earns_nothing(perfect: str) -> None:
    reward = Flip(inverter=perfect)
    broken = attempt(("no idea", *RIGHT), values=HELD, is_submitted=False)
    echo = attempt((*RIGHT, 'fill p1.e1 "Order for Anna in Oslo."', SEND), values=HELD, is_submitted=True)
    assert [score.value for score in scores(reward, [evidence_of(broken), evidence_of(echo)])] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("asked", "written", "is_paid"),
    [
        ("Name: Anna Maria Lund", "Anna Maria Lund", True),
        ("Town: Oslo; name: Call first; then come to the back door. Thanks!", None, True),
        ("Name: Anna; Town: Oslo", "Anna; Town: Oslo", False),
        ("Do this: order for Anna in Oslo", "order for Anna in Oslo", False),
        ("Name: Anna Maria Lund", "Name: Anna Maria Lund", False),
        ("Name: Anna Maria Olga Lund", "Anna Maria Olga", False),
    ],
)
def test_a_value_that_is_asked_for_is_no_echo(asked: str, written: str | None, is_paid: bool) -> None:
    """However much of a short instruction it is: a task of one field asks for little else."""
    value = asked.partition("name: ")[2] if written is None else written
    episode = as_planned(asked, PAGE, f'fill p1.e1 "{value}"')
    (score,) = scores(registry.build("reward", "flip", {"inverter": "plain"}), [episode])
    assert (score.value > 0) == is_paid


def test_a_failed_line_leaves_nothing_to_invert() -> None:
    """What is inverted is what happened, not what was written."""
    evidence = as_planned("x", PAGE, 'fill p1.e1 "Anna"\nfill p1.e9 "Oslo"\nselect p1.e2 "Rome"\nselect p1.e2 "Oslo"')
    assert render_state(executed_state(evidence)) == "Name: Anna\nTown: Oslo"


def test_a_line_break_or_a_semicolon_in_a_value_forges_no_field() -> None:
    forged = as_planned("Name: Anna; Town: Oslo", PAGE, 'fill p1.e1 "Anna\\nTown: Oslo"')
    assert executed_state(forged)[0].value == "Anna\nTown: Oslo"
    assert render_state(executed_state(forged)) == "Name: Anna Town: Oslo"
    plain = registry.build("reward", "flip", {"inverter": "plain", "max_echo": 1.0})
    right = as_planned("Name: Anna; Town: Oslo", PAGE, "\n".join(RIGHT))
    listed = as_planned("Name: Anna; Town: Oslo", PAGE, 'fill p1.e1 "Anna; Town: Oslo"')
    best, *others = (score.value for score in scores(plain, [right, forged, listed]))
    assert best == 1.0 > max(others)
    kept = as_planned("x", PAGE, 'fill p1.e1 "Call first; then come. Thanks!"')
    assert registry.build("inverter", "plain").write([render_state(executed_state(kept))]) == [
        "Name: Call first; then come. Thanks!"
    ]


def test_a_plan_can_be_ranked_before_it_is_run(perfect: str) -> None:
    plans = ["\n".join((*lines, SEND)) for lines in (WRONG, RIGHT)]
    page = [as_planned("Order for Anna in Oslo.", PAGE, plan) for plan in plans]
    low, high = (score.value for score in scores(Flip(inverter=perfect), page))
    assert low < high == 1.0


def test_the_plain_inverter_reads_the_state_as_it_stands() -> None:
    """It needs no training, counts clause by clause, and pays nothing for an untouched page."""
    reward = registry.build("reward", "flip", {"inverter": "plain"})
    assert check_reward(reward)
    listed = [as_planned("Town: Oslo; Name: Anna", PAGE, "\n".join(lines)) for lines in (RIGHT, WRONG, ())]
    right, wrong, nothing = (score.value for score in scores(reward, listed))
    assert right == pytest.approx(1.0) and nothing == 0.0 < wrong < 0.6
    with pytest.raises(ConfigError, match="word weights of a trained inverter"):
        similarity_named("idf", None)
    with pytest.raises(ConfigError, match="needs likelihoods, which the inverter 'plain'"):
        registry.build("reward", "flip", {"inverter": "plain", "similarity": "pmi"})


def test_a_missing_inverter_is_told() -> None:
    with pytest.raises(ConfigError, match="no inverter in the folder 'nowhere'"):
        registry.build("reward", "flip", {"inverter_options": {"checkpoint": "nowhere"}})
