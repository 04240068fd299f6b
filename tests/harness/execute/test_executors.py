"""Both executors keep one semantics: what an action may do, what it changes, and what is said about it."""

from __future__ import annotations

import random

import pytest

from dllm_rl.records.tasks import Outcome
from dllm_rl.session import Session
from harness.environments import FormEnvironment
from harness.execute import Executor
from harness.execute.executors import FastExecutor, TrustedExecutor
from tests.harness.conftest import Lab
from tests.harness.corruption import corrupted

pytestmark = pytest.mark.browser

FORM = """
<h1>All</h1><form method=post>
<label>Name <input name=name></label>
<label>Short <input name=short maxlength=3></label>
<label>Day <input type=date name=day value=2026-01-01></label>
<label>Count <input type=number name=count></label>
<label>Note <textarea name=note></textarea></label>
<label>Size <select name=size><option value="">Choose</option><option value=1>Small</option>
<option value=2>Large</option></select></label>
<label>Extras <select name=extras multiple><option value=a>Hat</option><option value=b>Scarf</option></select></label>
<label><input type=radio name=way value=1> Train</label><label><input type=radio name=way value=2> Car</label>
<label><input type=checkbox name=ok> Agree</label>
<label>Off <input name=off disabled></label>
<label>Fixed <input name=fixed readonly value=1></label>
<label hidden>Secret <input name=secret></label>
<button>Send</button></form>"""
NAME, SHORT, DAY, COUNT, NOTE, SIZE, EXTRAS, TRAIN, CAR, OK, OFF, FIXED, SECRET, SEND = (
    f"p1.e{n}" for n in range(1, 15)
)


@pytest.fixture(params=[FastExecutor(), TrustedExecutor()], ids=["fast", "trusted"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.param


CASES = [
    (f'fill {NAME} "Anna \\"A\\" B"', "ok", {"name": ('Anna "A" B',)}),
    (f'fill {NAME} ""', "ok", {"name": ()}),
    (f'fill {NAME} "two\\nlines"', "changed", {"name": ()}),
    (f'fill {NOTE} "two\\nlines"', "ok", {"note": ("two\nlines",)}),
    (f'fill {SHORT} "abcdef"', "changed", {"short": ("abc",)}),
    (f'fill {DAY} "2026-02-03"', "ok", {"day": ("2026-02-03",)}),
    (f'fill {DAY} "2026/02/03"', "changed", {"day": ("2026-01-01",)}),
    (f"clear {DAY}", "ok", {"day": ()}),
    (f'fill {COUNT} "12"', "ok", {"count": ("12",)}),
    (f'fill {COUNT} "many"', "changed", {"count": ()}),
    (f'select {SIZE} "Large"', "ok", {"size": ("Large",)}),
    (f'select {SIZE} "large"', "no option", {"size": ()}),
    (f'select {SIZE} "Choose"', "no option", {"size": ()}),
    (f'select {EXTRAS} "Scarf"\nselect {EXTRAS} "Hat"', "ok", {"extras": ("Hat", "Scarf")}),
    (f"choose {CAR}", "ok", {"way": ("Car",)}),
    (f"choose {CAR}\nclick {TRAIN}", "ok", {"way": ("Train",)}),
    (f"check {OK}\ncheck {OK}", "ok", {"ok": ("on",)}),
    (f"check {OK}\nclick {OK}", "ok", {"ok": ()}),
    (f'fill {COUNT} "1"\npress {COUNT} "ArrowUp"', "ok", {"count": ("2",)}),
    (f'press {OK} "Space"', "cannot press a checkbox", {"ok": ()}),
    (f'fill {OFF} "x"', "disabled", {"off": ()}),
    (f'fill {FIXED} "x"', "not editable", {"fixed": ("1",)}),
    (f'fill {SECRET} "x"', "hidden", {}),
    (f'fill {SIZE} "Large"', "cannot fill a select", {"size": ()}),
    ('fill p1.e99 "x"', "not found", {}),
]


@pytest.mark.parametrize(("plan", "note", "values"), CASES, ids=[case[0].split("\n")[-1] for case in CASES])
def test_one_action(lab: Lab, executor: Executor, plan: str, note: str, values: dict) -> None:
    execution = lab.plan(FORM, plan, executor)
    assert execution.actions[-1].note.startswith(note), execution.actions
    assert execution.actions[-1].status == ("ok" if note == "ok" else "failed")
    assert {name: execution.values[name] for name in values} == values


COVERED = """<h1>Covered</h1><form method=post><button>Send</button></form>
<div role=dialog aria-label=Cookies style="position:fixed;inset:0;background:#fff">We use cookies</div>"""


def test_a_covered_button_is_refused(lab: Lab, executor: Executor) -> None:
    execution = lab.plan(COVERED, "submit p1.e1", executor)
    assert execution.actions[0].note == 'obscured: p1.e1 is covered by "Cookies"'
    assert lab.num_posts == 0


def test_validation_stops_a_submission_and_says_why(lab: Lab, executor: Executor) -> None:
    body = (
        "<h1>V</h1><form method=post><label>Mail <input type=email name=m required></label><button>Send</button></form>"
    )
    execution = lab.plan(body, 'fill p1.e1 "anna"\nsubmit p1.e2\nfill p1.e1 "a@b.org"', executor)
    assert [item.status for item in execution.actions] == ["ok", "failed", "ok"]
    assert execution.actions[1].note.startswith("validation: Mail - ")
    assert execution.values == {"m": ("a@b.org",)}
    assert lab.num_posts == 0


def test_events_come_as_a_page_expects_them(lab: Lab, executor: Executor) -> None:
    """A framework's controlled input, which keeps its own copy, must hear of the value; so must a change handler."""
    body = """<h1>E</h1><form><label>A <input name=a></label>
    <label>B <select name=b><option>x</option><option>y</option></select></label>
    <label><input type=checkbox name=c> C</label><label>Log <textarea name=log></textarea></label></form>
    <script>const log = document.querySelector('[name=log]');
    for (const name of ['a', 'b', 'c']) for (const type of ['input', 'change'])
      document.querySelector(`[name=${name}]`).addEventListener(type, (event) => {
        const said = `${name}:${type}`;
        if (!log.value.includes(said)) log.value += `${said}=${event.target.value} `; });</script>"""
    execution = lab.plan(body, 'fill p1.e1 "hi"\nselect p1.e2 "y"\ncheck p1.e3\nclick p1.e1', executor)
    (heard,) = execution.values["log"]
    assert all(
        text in heard for text in ("a:input=hi", "a:change=hi", "b:input=y", "b:change=y", "c:input", "c:change")
    )


def test_a_control_revealed_a_little_later_is_waited_for(lab: Lab, executor: Executor) -> None:
    body = """<h1>L</h1><form><label><input type=checkbox name=more> More</label>
    <label hidden>Why <input name=why></label></form>
    <script>document.querySelector('[name=more]').addEventListener('change', () =>
    requestAnimationFrame(() => { document.querySelector('label[hidden]').hidden = false; }));</script>"""
    execution = lab.plan(body, 'check p1.e1\nfill p1.e2 "so"', executor)
    assert execution.values["why"] == ("so",)


def test_alerts_are_answered_and_recorded(lab: Lab, executor: Executor) -> None:
    body = "<h1>D</h1><form><button type=button onclick=\"alert('Careful')\">Warn</button></form>"
    execution = lab.plan(body, "click p1.e1", executor)
    assert execution.dialogs == ("alert: Careful",)
    assert execution.actions[0].note == 'ok click p1.e1; dialog: "Careful"'


def test_feedback_says_what_else_changed(lab: Lab, executor: Executor) -> None:
    body = """<h1>F</h1><form><label><input type=checkbox name=more> More</label>
    <label hidden>Why <input name=why></label><button type=button>Nothing</button>
    <button type=button onclick="this.nextSibling.textContent = 'seen'">Something</button><p></p></form>
    <script>document.querySelector('[name=more]').addEventListener('change', (event) => {
    document.querySelector('label + label').hidden = !event.target.checked; });</script>"""
    plan = "check p1.e1\nuncheck p1.e1\nclick p1.e3\nclick p1.e4\ncheck p1.e1"
    assert [item.note for item in lab.plan(body, plan, executor).actions] == [
        'ok check p1.e1; new fields: "Why"',
        'ok uncheck p1.e1; gone: "Why"',
        "ok click p1.e3; no visible change",
        "ok click p1.e4",
        'ok check p1.e1; new fields: "Why"',
    ]


def same(outcome: Outcome) -> tuple:
    actions = tuple((item.line, item.status, item.note) for item in outcome.actions)
    return (outcome.is_submitted, outcome.is_clean, outcome.fields, outcome.fault, outcome.pages_reached, actions)


def test_executors_and_isolation_modes_agree_on_corrupted_plans(session: Session[FormEnvironment]) -> None:
    rng, pairs = random.Random(7), []
    for split in ("train", "test_layout"):
        tasks = session.tasks(split)
        for task, page in zip(tasks, session.observe_many(tasks), strict=True):
            pairs += [(task, corrupted(session.gold_plan(task), page, rng)) for _ in range(2)]
    fast = session.run_many(pairs, isolation="page", executor="fast")
    trusted = session.run_many(pairs, isolation="context", executor="trusted")
    for (task, plan), left, right in zip(pairs, fast, trusted, strict=True):
        assert same(left) == same(right), f"{task.id}\n{plan}"
