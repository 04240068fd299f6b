"""The payload decides; where nothing was accepted, what stands on the pages does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import GoldField, Observation, Task
from harness.execute import Execution
from harness.judge import Evidence, judge
from harness.judge.outcome import are_equal


@dataclass(frozen=True)
class Attempt:
    accepted: bool
    fields: dict[str, tuple[str, ...]]
    errors: tuple[str, ...] = field(default=())


TASK = Task(
    id="t",
    split="train",
    site="s",
    instruction="",
    gold=(
        GoldField(name="name", kind="text", wanted=("Anna",)),
        GoldField(name="day", kind="date", wanted=("2026-01-05",)),
    ),
)


def outcome(submissions: list[Attempt], values: dict[str, tuple[str, ...]], task: Task = TASK):
    return judge(
        Evidence(
            task=task,
            page=Observation(titles=("Form",), controls=()),
            plan=parse_plan(""),
            execution=Execution(values=values),
            submissions=submissions,
            pages_reached=1,
            defaults={"name": (), "day": (), "news": ("on",)},
        )
    )


GOLD = {"name": ("Anna",), "day": ("2026-01-05",), "news": ("on",)}


def test_the_payload_is_the_truth_and_not_the_page() -> None:
    judged = outcome([Attempt(True, {**GOLD, "name": ("Ann",)})], GOLD)
    assert judged.is_submitted
    assert not judged.all_correct


def test_without_acceptance_the_page_counts() -> None:
    judged = outcome([Attempt(False, GOLD, ("Day: too early",))], GOLD)
    assert judged.is_near_miss
    assert judged.validity_errors == ("Day: too early",)
    assert judged.num_rejected == 1


def test_other_fields_must_keep_their_defaults() -> None:
    assert outcome([Attempt(True, GOLD)], {}).is_success
    assert not outcome([Attempt(True, {**GOLD, "news": ()})], {}).is_success
    assert not outcome([Attempt(True, {**GOLD, "other": ("x",)})], {}).is_success


def test_a_field_on_a_page_never_reached_stands_at_its_default() -> None:
    task = replace(TASK, gold=(*TASK.gold, GoldField(name="news", kind="checkbox", wanted=())))
    fields = {result.name: result for result in outcome([], {}, task).fields}
    assert not fields["news"].is_correct
    assert not fields["news"].is_default


@pytest.mark.parametrize(
    ("kind", "wanted", "got", "expected"),
    [
        ("text", ("Anna  Bo",), (" Anna Bo ",), True),
        ("text", ("Anna",), ("anna",), False),
        ("number", ("5",), ("5.0",), True),
        ("number", ("5",), ("05",), True),
        ("number", ("5",), ("x",), False),
        ("date", ("2026-01-05",), ("2026-01-05",), True),
        ("date", ("2026-01-05",), ("05.01.2026",), False),
        ("multiselect", ("a", "b"), ("b", "a"), True),
        ("checkbox", ("on",), ("on",), True),
        ("checkbox", (), ("",), True),
        ("checkbox", (), ("on",), False),
    ],
)
def test_equality_knows_the_kind(kind, wanted, got, expected: bool) -> None:
    assert are_equal(kind, wanted, got) is expected
