"""The adapter on a look-alike of our own: every solvable record is solved through the browser, the others are named."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Control, Observation, Task
from harness.environments import Catalogue, FormFactoryEnvironment, FormFactorySettings
from harness.environments.formfactory import Checkout, FormRecords
from harness.environments.formfactory.checkout import make_catalogue
from harness.environments.recorded import (
    CannotHoldError,
    Observed,
    find_controls,
    gold_of,
    linked_forms,
    oracle_plan,
    wanted_values,
)
from harness.recorder import Upstream
from harness.rewards import Shaped, Success

NAME_THAT_BREAKS_IT = "Robert'); --"
LOOKALIKE = Path(__file__).parent / "lookalike"
APPLICATION = "site.py:application"
EMPTY = Observation(titles=("",), controls=())


@pytest.fixture
def vendored(tmp_path: Path) -> Path:
    """The one external asset that a form needs, as a user would keep it."""
    folder = tmp_path / "assets" / "cdn.example.com"
    folder.mkdir(parents=True)
    (folder / "kit.js").write_text("window.kitIsHere = true;")
    return tmp_path / "assets"


def environment(**settings: Any) -> FormFactoryEnvironment:
    settings = {"fixtures": LOOKALIKE / "fixtures", **settings}
    return FormFactoryEnvironment(FormFactorySettings(folder=LOOKALIKE, application=APPLICATION, **settings))


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.mark.browser
@pytest.mark.parametrize(("executor", "isolation"), [("trusted", "context"), ("fast", "page")])
def test_every_solvable_record_is_solved_and_nothing_else_is(vendored: Path, executor: Any, isolation: Any) -> None:
    async def work() -> tuple[Catalogue, list[Any], list[Any], int]:
        opened = environment(vendored=vendored, executor=executor, isolation=isolation)
        async with opened:
            pid = opened.application.pid
            assert pid is not None
            assert pid != os.getpid()
            catalogue = opened.catalogue
            gold, wrong = [], []
            for task in catalogue.tasks:
                page = await opened.observe(task)
                plan = opened.gold_plan(task, page)
                gold.append(await opened.run(task, plan))
                wrong.append(await opened.run(task, "\n".join(plan.splitlines()[1:])))
            wrong.append(await opened.run(catalogue.tasks[0], ""))
        return catalogue, gold, wrong, pid

    catalogue, gold, wrong, pid = asyncio.run(work())
    assert len(catalogue.tasks) == 6
    assert [(item.task_id, item.fault_reason) for item in gold if Success()(item) != 1.0] == []
    assert all(Shaped()(item) == 1.0 for item in gold)
    assert [item.task_id for item in wrong if item.is_success] == []
    assert not is_alive(pid)
    assert not (LOOKALIKE / "received.txt").exists()
    dates = {item.wanted for outcome in gold for item in outcome.fields if item.name == "dob"}
    assert dates == {("1984-03-05",), ("1990-07-04",)}
    topics = {item.server for outcome in gold for item in outcome.fields if item.name == "topics[]"}
    assert topics == {("Glass", "Clay"), ("Wood, paper",)}
    assert {item.server for outcome in gold for item in outcome.fields if item.name == "needs"} == {
        ("Power outlet",),
        ("Power outlet", "Water tap"),
    }


@pytest.mark.browser
@pytest.mark.parametrize(("executor", "isolation"), [("trusted", "context"), ("fast", "page")])
def test_what_a_plan_does_is_never_masked(executor: Any, isolation: Any) -> None:
    """A link out of the site, and a form at which the application breaks, are failures of the plan."""

    async def work() -> list[Any]:
        async with environment(executor=executor, isolation=isolation) as opened:
            task = opened.catalogue.tasks[0]
            plan = opened.gold_plan(task, await opened.observe(task))
            (name,) = (line for line in plan.splitlines() if line.startswith("fill p1.e1 "))
            away = next(item.ref for item in (await opened.observe(task)).controls if item.kind == "link")
            broken = plan.replace(name, f'fill p1.e1 "{NAME_THAT_BREAKS_IT}"')
            return [await opened.run(task, f"click {away}\n{plan}"), await opened.run(task, broken)]

    left, broken = asyncio.run(work())
    assert (left.is_valid, left.is_submitted, left.num_attempts) == (True, False, 1)
    assert left.actions[0].note.endswith("leads out of the site")
    assert left.actions[1].status == "skipped"
    assert (broken.is_valid, broken.is_submitted, broken.num_rejected) == (True, False, 1)
    assert broken.validity_errors == ("the application answered 500",)


@pytest.mark.browser
def test_what_cannot_be_solved_is_listed_with_the_reason_and_left_out() -> None:
    async def work(**settings: Any) -> Catalogue:
        async with environment(isolation="page", **settings) as opened:
            return opened.catalogue

    catalogue = asyncio.run(work(fixtures=None))
    assert catalogue.reasons() == {
        "not a date": 1,
        "gold key without control": 2,
        "required field without gold": 2,
        "required file without fixture": 1,
        "option absent": 2,
    }
    reasons = {f"{Path(item.form).name}-{item.number}": item.reason for item in catalogue.unsolvable}
    assert reasons["join-2"] == "Plan: option absent"
    assert reasons["join-3"] == "Date of Birth: not a date"
    assert reasons["join-4"] == "Favourite Colour: gold key without control"
    assert reasons["join-5"] == "Member Name: required field without gold"
    assert reasons["fair-1"] == "Floor Plan: required file without fixture"
    assert len(catalogue.tasks) == 5
    assert len(catalogue.unsolvable) == 8


@pytest.mark.browser
def test_external_assets_are_blocked_and_a_script_that_needs_them_sends_nothing() -> None:
    async def work() -> Any:
        async with environment() as opened:
            catalogue = opened.catalogue
            task = next(item for item in catalogue.tasks if item.site == "/note")
            return await opened.run(task, opened.gold_plan(task, await opened.observe(task)))

    outcome = asyncio.run(work())
    assert not outcome.is_submitted
    assert outcome.is_near_miss


def form(page: Observation, **known: Any) -> Observed:
    return Observed(page=page, **{"choices": {}, "identities": {}, "defaults": {}, **known})


def control(kind: Any, name: str = "", *, group: str = "", field: str = "f", options: tuple[str, ...] = ()) -> Control:
    return Control(ref="p1.e1", kind=kind, name=name, group=group, field=field, options=options)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("date", "2024-01-05", "2024-01-05"),
        ("date", "2024/01/05", "2024-01-05"),
        ("date", "01/05/2024", "2024-01-05"),
        ("date", "25/12/2024", "2024-12-25"),
        ("date", "January 5th, 2024", "2024-01-05"),
        ("date", "5 Jan 2024", "2024-01-05"),
        ("number", "$1,200", "1200"),
        ("number", 3.5, "3.5"),
        ("number", "12 %", "12"),
        ("number", "12,345.5", "12345.5"),
        ("text", "two\nlines", "two lines"),
        ("text", "None", "None"),
        ("textarea", "two\nlines", "two\nlines"),
        ("text", ["a", "b"], "a, b"),
    ],
)
def test_values_become_what_a_control_can_hold(kind: str, value: Any, wanted: str) -> None:
    assert wanted_values(value, [control(kind)], EMPTY) == (wanted,)


@pytest.mark.parametrize(
    ("item", "value", "reason"),
    [
        (control("date"), "soon", "not a date"),
        (control("number"), "about five", "not a number"),
        (control("number"), "1.250,50", "not a number"),
        (control("number"), "2,5", "not a number"),
        (control("date", options=("hh:mm",)), "noon", "not a time"),
        (control("text", options=("#rrggbb",)), "red", "not a colour"),
        (control("select", options=("Red", "Blue")), "Green", "option absent"),
        (control("select", options=("Red", "Blue")), ["Red", "Blue"], "a list of values"),
        (control("checkbox", "Terms"), "perhaps", "neither yes nor no"),
        (control("text"), {"a": 1}, "other schema"),
    ],
)
def test_what_it_cannot_hold_is_refused_with_the_reason(item: Control, value: Any, reason: str) -> None:
    with pytest.raises(CannotHoldError, match=reason):
        wanted_values(value, [item], EMPTY)


def test_a_key_is_found_by_label_legend_html_name_or_likeness() -> None:
    box, other = (
        control("checkbox", "Glass", group="Topics", field="t[]"),
        control("checkbox", "Clay", group="Topics", field="t[]"),
    )
    text, born = control("text", "Full Name *", field="fullName"), control("date", "Born", field="dateOfBirth")
    page = Observation(titles=("",), controls=(box, other, text, born))
    assert find_controls("Topics", page) == (box, other)
    assert find_controls("Clay", page) == (other,)
    assert find_controls("full_name", page) == (text,)
    assert find_controls("Date of Birth (required)", page) == (born,)
    assert find_controls("Ful Name", page) == (text,)
    assert find_controls("Colour", page) == ()


def test_a_remark_behind_a_label_may_be_left_out_where_one_field_remains() -> None:
    essay, home, work = (
        control("textarea", "Purpose (500 words max) *", field="essay"),
        control("tel", "Phone (home)", field="home"),
        control("tel", "Phone (work)", field="work"),
    )
    page = Observation(titles=("",), controls=(essay, home, work))
    assert find_controls("Purpose", page) == (essay,)
    assert find_controls("Phone", page) == ()
    assert find_controls("Phone (work)", page) == (work,)


def test_a_list_is_one_value_for_each_of_the_boxes_that_share_a_field() -> None:
    parts = tuple(
        Control(ref=f"p1.e{at + 1}", kind="text", name=name, field="tel[]", place=at)
        for at, name in enumerate(("area", "line"))
    )
    page = Observation(titles=("",), controls=(*parts, Control(ref="p1.e3", kind="button", name="Send")))
    seen = form(page)
    gold = gold_of({"Tel": ["020", "79460018"]}, seen, ())
    task = Task(id="test/x", split="test", site="/x", instruction="", gold=gold)
    assert oracle_plan(task, seen) == 'fill p1.e1 "020"\nfill p1.e2 "79460018"\nsubmit p1.e3'
    with pytest.raises(CannotHoldError, match="list of 2 values"):
        gold_of({"Tel": "02079460018"}, seen, ())


@pytest.mark.parametrize(
    ("format", "value", "wanted"),
    [
        ("hh:mm", "5:30 PM", "17:30"),
        ("hh:mm", "5 p.m.", "17:00"),
        ("YYYY-MM", "May 2026", "2026-05"),
        ("YYYY-Www", "2026 W5", "2026-W05"),
        ("YYYY-MM-DDThh:mm", "02/03/2026 10:30 AM", "2026-02-03T10:30"),
        ("#rrggbb", "#DC143C", "#dc143c"),
    ],
)
def test_a_format_that_a_control_names_is_kept(format: str, value: str, wanted: str) -> None:
    kind = "text" if format == "#rrggbb" else "date"
    assert wanted_values(value, [control(kind, options=(format,))], EMPTY) == (wanted,)


def test_a_word_for_nothing_is_an_option_where_one_is_called_so() -> None:
    extras = control("select", options=("None", "Wheels"))
    assert wanted_values("None", [extras], EMPTY) == ("None",)
    assert wanted_values("N/A", [extras], EMPTY) == ()
    radios = [control("radio", "None"), control("radio", "Wheels")]
    assert wanted_values("none", radios, EMPTY) == ("None",)
    assert wanted_values("None", [control("date")], EMPTY) == ()


def test_a_required_file_that_no_key_names_is_the_fixture_that_is_called_like_it() -> None:
    plan = Control(ref="p1.e1", kind="file", name="Floor plan", field="plan", required=True)
    page = Observation(titles=("",), controls=(plan, Control(ref="p1.e2", kind="text", name="Owner", field="owner")))
    gold = {item.name: item.wanted for item in gold_of({"Owner": "Ann"}, form(page), ("plan.pdf",))}
    assert gold == {"owner": ("Ann",), "plan": ("plan.pdf",)}
    with pytest.raises(CannotHoldError, match="Floor plan: required file without fixture"):
        gold_of({"Owner": "Ann"}, form(page), ("other.pdf",))


def test_a_required_file_that_a_record_leaves_open_is_any_and_the_instruction_names_it() -> None:
    plan = Control(ref="p1.e1", kind="file", name="Floor plan", field="floorPlan", required=True)
    page = Observation(titles=("",), controls=(plan, Control(ref="p1.e2", kind="text", name="Owner", field="owner")))
    rows = ({"Owner": "Ann"}, {"Owner": "Bo", "Floor plan": "None"}, {"Owner": "Cy", "Floor plan": "mine.pdf"})
    records = FormRecords(form="join", path="/join", file="gold.json", records=rows)
    found = make_catalogue([records], {"/join": form(page)}, (), {})
    asked = [task.instruction for task in found.tasks]
    assert asked == ["Owner: Ann; Floor plan: floor_plan.pdf", "Owner: Bo; Floor plan: floor_plan.pdf"]
    assert [item.reason for item in found.unsolvable] == ["Floor plan: required file without fixture"]
    assert all(task.gold[-1].wanted == ("floor_plan.pdf",) for task in found.tasks)


INCOMES = ("$0 - $30,000", "$30,001 - $60,000", "$60,001+")
SLOTS = ("Morning (9:00 AM - 12:00 PM)", "Evening (6:00 PM - 9:00 PM)")


@pytest.mark.parametrize(
    ("value", "options", "meant"),
    [
        ("am", SLOTS, SLOTS[0]),
        ("evening slot", SLOTS, SLOTS[1]),
        ("Saving Account", ("Savings Account", "Business Account"), "Savings Account"),
        ("Life Time", ("1 Year", "Lifetime"), "Lifetime"),
        ("30,000", INCOMES, INCOMES[0]),
        (45000, INCOMES, INCOMES[1]),
        ("$75,000", INCOMES, INCOMES[2]),
        ("10AM", SLOTS, SLOTS[0]),
        ("9 PM", SLOTS, SLOTS[1]),
    ],
)
def test_an_option_may_be_meant_by_what_it_sends_by_another_spelling_or_by_its_range(
    value: Any, options: tuple[str, ...], meant: str
) -> None:
    texts = {"am": SLOTS[0], "evening_slot": SLOTS[1]}
    assert wanted_values(value, [control("select", options=options)], EMPTY, texts) == (meant,)
    assert wanted_values(value, [control("radio", option) for option in options], EMPTY, texts) == (meant,)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ("Fall 2025", ("Fall 2024", "Spring 2025")),
        ("5PM", SLOTS),
        ("30000.5", INCOMES),
        ("noon", SLOTS),
        ("10", ("0 - 10", "10 - 20")),
        ("PhD", ("Doctorate", "Other")),
        ("2", ("One room", "Two rooms")),
    ],
)
def test_what_is_near_an_option_or_in_two_of_them_means_none(value: str, options: tuple[str, ...]) -> None:
    with pytest.raises(CannotHoldError, match="option absent"):
        wanted_values(value, [control("select", options=options)], EMPTY, {"2": options[0]})


def test_what_an_application_wrote_down_once_is_no_gold(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    (tmp_path / "gold.json").write_text(json.dumps([{"Owner name": "Ann", "Town": "Ypres"}, {"Owner name": "Bo"}]))
    (tmp_path / "submission.json").write_text(json.dumps([{"owner": "me", "town": "here"}]))
    fields = (("Owner name", "owner"), ("Home town", "town"))
    controls = [
        Control(ref=f"p1.e{at}", kind="text", name=name, field=field) for at, (name, field) in enumerate(fields, 1)
    ]
    (form,) = Checkout(folder=tmp_path).assign({"/join": Observation(titles=("",), controls=tuple(controls))})
    assert form.file == "gold.json"


def test_a_key_that_names_no_control_may_be_given_one() -> None:
    records = FormRecords(form="join", path="/join", file="gold.json", records=({"Applicant": "Ann", "Note": "x"},))
    page = Observation(titles=("",), controls=(Control(ref="p1.e1", kind="text", name="Owner", field="owner"),))

    def catalogue(keys: dict[str, str]) -> Catalogue:
        return make_catalogue([records], {"/join": form(page)}, (), keys)

    assert [item.reason for item in catalogue({}).unsolvable] == ["Applicant: gold key without control"]
    (task,) = catalogue({"Applicant": "owner", "Note": ""}).tasks
    assert (task.instruction, [(item.name, item.wanted) for item in task.gold]) == (
        "Applicant: Ann",
        [("owner", ("Ann",))],
    )


PAGES_BY_PATH: dict[str, tuple[int, str]] = {
    "/": (302, "/start"),
    "/start": (200, "".join(f"<a href='{link}'>" for link in ("/a b", "/b\u00fc", "http://[::1", "//else/x", "/e"))),
    "/a%20b": (200, "<form></form>"),
    "/b%C3%BC": (200, "<form></form>"),
    "/e": (404, "<form></form>"),
}


@contextmanager
def served(pages: dict[str, tuple[int, str]]) -> Iterator[Upstream]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages[self.path]
            self.send_response(status)
            self.send_header("Location" if status == 302 else "Content-Type", body if status == 302 else "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Upstream(port=server.server_port)
        server.shutdown()


def test_forms_are_found_behind_odd_links_and_a_first_page_that_leads_on() -> None:
    with served(PAGES_BY_PATH) as upstream:
        assert linked_forms(upstream) == ["/a%20b", "/b%C3%BC"]


def test_a_first_page_that_is_an_error_is_named() -> None:
    with served({"/": (500, "")}) as upstream, pytest.raises(ConfigError, match="the first page answered 500"):
        linked_forms(upstream)


STARTS = """
import asyncio, sys
from pathlib import Path
from harness.environments.recorded import ApplicationProcess

async def main():
    application = ApplicationProcess(Path(sys.argv[1]), "site.py:application")
    await application.start()
    print(application.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_whoever_is_killed_leaves_neither_the_application_nor_its_copy(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTS, str(LOOKALIKE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert len(list(tmp_path.iterdir())) == 1
        parent.kill()
    ends = time.monotonic() + 20
    while (is_alive(pid) or list(tmp_path.iterdir())) and time.monotonic() < ends:
        time.sleep(0.05)
    assert (is_alive(pid), list(tmp_path.iterdir())) == (False, [])


def test_a_folder_without_the_application_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no app\.py in"):
        Checkout(folder=LOOKALIKE)


def test_an_application_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import no_such_package_here")

    async def work() -> None:
        async with FormFactoryEnvironment(FormFactorySettings(folder=tmp_path)):
            pass

    with pytest.raises(ConfigError, match="No module named 'no_such_package_here'"):
        asyncio.run(work())
