"""Outcomes on disk: what comes back is what was put, from whichever process, and a broken file costs only time."""

from __future__ import annotations

import signal
import sqlite3
import time
from dataclasses import asdict, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dllm_rl.records.tasks import ActionResult, Fault, FieldResult, Outcome
from dllm_rl.session import Session
from harness.environments import FormEnvironment, FormSettings
from harness.judge import OutcomeStore
from harness.judge.store import _shape
from tests.processes import Forked

FIELD = FieldResult(name="a", wanted=("x",), server=None, dom=("é", "\ud800"), is_correct=False, is_default=True)
FULL = Outcome(
    task_id="t",
    fault=Fault.AGENT,
    fault_reason="left",
    is_parsed=False,
    fields=(FIELD, FieldResult(name="b", wanted=(), server=("1",), dom=None, is_correct=True, is_default=False)),
    validity_errors=("too short",),
    dialogs=("sure?",),
    actions=(ActionResult(line=1, text='fill p1.e1 "\ud800"', status="malformed", note="column 3"),),
    errors_by_rejection=(2, 1),
    recheck="same",
    seconds={"act": 0.25},
)


def test_an_outcome_comes_back_as_it_was_put(tmp_path: Path) -> None:
    first, second = OutcomeStore(tmp_path / "a" / "outcomes.sqlite"), OutcomeStore(tmp_path / "a" / "outcomes.sqlite")
    first.put("k", FULL)
    assert second.get("k") == FULL
    assert second.get("other") is None
    second.clear()
    assert first.get("k") is None


def test_an_outcome_that_was_damaged_is_absent(tmp_path: Path) -> None:
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    store.put("k", FULL)
    with sqlite3.connect(tmp_path / "outcomes.sqlite") as connection:
        connection.execute("UPDATE outcomes SET outcome = replace(outcome, 'left', 'lift')")
    assert store.get("k") is None
    store.put("k", FULL)
    assert store.get("k") == FULL


def test_an_outcome_of_another_version_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    monkeypatch.setattr("harness.judge.store.asdict", lambda outcome: {**asdict(outcome), "is_neat": True})
    store.put("k", FULL)
    assert store.get("k") is None
    monkeypatch.undo()
    store.put("k", FULL)
    assert store.get("k") == FULL


def test_versions_whose_outcomes_have_other_fields_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field that the other lacks would read as its default."""
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    older = make_dataclass("Outcome", [item.name for item in fields(Outcome) if item.name != "dialogs"])
    with monkeypatch.context() as patch:
        patch.setattr("harness.judge.store._SHAPE", _shape(older, FieldResult, ActionResult))
        store.put("k", replace(FULL, dialogs=()))
    assert store.get("k") is None
    store.put("k", FULL)
    assert store.get("k") == FULL
    monkeypatch.setattr("harness.judge.store._SHAPE", _shape(older, FieldResult, ActionResult))
    assert store.get("k") == replace(FULL, dialogs=())


def test_a_damaged_file_is_told_and_outcomes_are_kept_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outcomes.sqlite").write_bytes(b"no database" * 100)
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    store.put("k", FULL)
    assert store.get("k") == FULL
    assert caplog.text.count("cannot be used") == 1 and "Delete that file" in caplog.text


def write_many(file: Path, name: str, count: int) -> None:
    store = OutcomeStore(file)
    for number in range(count):
        store.put(f"{name}{number}", Outcome(task_id=f"{number}", dialogs=("x" * 2000,)))
        print(number, flush=True)


def test_two_processes_write_at_once_and_one_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.sqlite"
    killed, other = (
        Forked(write_many, file, name, count, output=tmp_path / name) for name, count in (("a", 100_000), ("b", 60))
    )
    while killed.output.read_text().count("\n") < 20:
        assert killed.code is None, killed.end()
        time.sleep(0.005)
    killed.send(signal.SIGKILL)
    killed.end()
    assert other.end().split() == [str(number) for number in range(60)]
    store = OutcomeStore(file)
    assert all(store.get(f"a{number}") for number in range(20))
    assert all(store.get(f"b{number}") for number in range(60))
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.browser
def test_equal_plans_of_two_environments_run_once_and_each_way_by_itself(
    session: Session[FormEnvironment], tmp_path: Path
) -> None:
    (task, *_) = session.tasks("val")
    pair = (task, session.gold_plan(task))
    settings = FormSettings(
        counts=session.environment.settings.counts,
        cache_dir=session.environment.settings.cache_dir,
        caches_outcomes=True,
    )

    def run(**how: Any) -> bool:
        with Session(FormEnvironment(settings)) as opened:
            opened.keep_outcomes(tmp_path / "outcomes.sqlite")
            opened.environment.audit.num_reused = 1
            return opened.run_many([pair], **how)[0].is_reused

    assert [run(), run()] == [False, True]
    assert [run(isolation="context", executor="trusted") for _ in range(2)] == [False, True]


@pytest.mark.browser
def test_a_gold_plan_is_proved_once_a_user(session: Session[FormEnvironment], tmp_path: Path) -> None:
    """Another environment of the same user runs none again but the one that is audited; a failure is not kept."""
    task, other = session.tasks("val")[:2]
    pairs = [(task, session.gold_plan(task)), (other, "")]
    settings = FormSettings(counts=session.environment.settings.counts, cache_dir=tmp_path)
    for num_reused in (0, 1):
        with Session(FormEnvironment(settings)) as opened:
            opened.observe_many([task])
            outcomes = opened.wait_for(opened.environment.prove(pairs))
            assert [outcome.is_success for outcome in outcomes] == [True, False]
            assert opened.environment.audit.num_reused == num_reused
