"""Damaged plans have one thing wrong each, of which the name tells; the truth labels them."""

from __future__ import annotations

from random import Random

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Control, Observation
from dllm_rl.session import Session
from experiments.run.damage import damaged_evidence, damages

PAGE = Observation(
    titles=("Order",),
    controls=(
        Control(ref="p1.e1", kind="text", name="Name", field="name"),
        Control(ref="p1.e2", kind="text", name="Street", field="street"),
        Control(ref="p1.e3", kind="text", name="Note", field="note"),
        Control(ref="p1.e4", kind="select", name="Town", options=("Rome", "Oslo"), field="town"),
        Control(ref="p1.e5", kind="button", name="Send"),
    ),
)
NAME, STREET, TOWN, SEND = 'fill p1.e1 "Anna"', 'fill p1.e2 "Hill 3"', 'select p1.e4 "Oslo"', "submit p1.e5"


def damaged(*lines: str, page: Observation = PAGE) -> dict[str, str]:
    pool = {"text": ["Anna", "Hill 3", "Karl"]}
    return damages("\n".join(lines), page, "For Anna at Hill 3 in Oslo.", pool, Random(0))


def test_every_damage_changes_what_its_name_says() -> None:
    found = {name: text.split("\n") for name, text in damaged(NAME, STREET, TOWN, SEND).items()}
    whole = [NAME, STREET, TOWN, SEND]
    assert found["not submitted"] == whole[:-1]
    assert found["swapped values"] == ['fill p1.e1 "Hill 3"', 'fill p1.e2 "Anna"', TOWN, SEND]
    assert found["wrong control"] in (['fill p1.e3 "Anna"', *whole[1:]], [NAME, 'fill p1.e3 "Hill 3"', *whole[2:]])
    for name, same in (("wrong value", "values"), ("echo", "fill")):
        changed = [(old, new) for old, new in zip(whole, found[name], strict=True) if old != new]
        assert len(changed) == 1 and changed[0][0].split()[:2] == changed[0][1].split()[:2], (name, same)
    assert "For Anna at Hill 3 in Oslo." in "".join(found["echo"])


def test_what_a_page_does_not_allow_is_left_out() -> None:
    assert set(damaged(TOWN, SEND)) == {"wrong value", "not submitted"}
    assert damaged(TOWN, SEND)["wrong value"] == f'select p1.e4 "Rome"\n{SEND}'
    assert set(damaged("click p1.e5")) == {"not submitted"}


def test_damage_is_labelled_by_the_truth_and_gold_is_among_it() -> None:
    with Session(registry.build("environment", "toy_copy")) as session:
        found = damaged_evidence(session, session.tasks("val")[:6])
        assert found == damaged_evidence(session, session.tasks("val")[:6])
    assert [item.success for item in found if not item.error] == [True] * 6
    assert {item.error for item in found if not item.success} >= {"wrong value", "swapped values", "not submitted"}
    assert {item.source for item in found} == {"gold", "damaged"}


def test_without_a_gold_plan_there_is_nothing_to_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = registry.build("environment", "toy_copy")
    monkeypatch.setattr(environment, "gold_plan", lambda task, page: None)
    with Session(environment) as session, pytest.raises(ConfigError, match="no gold plan"):
        damaged_evidence(session, session.tasks("val")[:1])
