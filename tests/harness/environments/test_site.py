"""A site of one's own as an environment, whatever serves it: solved, ended with us, and reached alone."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Control, Observation, Outcome
from dllm_rl.session import Session
from harness.browser import EnvironmentFaultError
from harness.environments import SiteEnvironment, SiteSettings
from harness.environments.recorded import Observed
from harness.environments.site.draft import draft
from harness.environments.site.sources import GUARD, Address, Command, page_of, run_hook
from harness.environments.site.tasks import read_tasks
from harness.execute.executors import EXECUTORS, Report, TrustedExecutor

OWN = Path(__file__).parent / "own_site"
SERVER = f"{sys.executable} {OWN / 'server.py'} {{port}}"
PAGE = """<!doctype html><html lang=en><title>Workshop</title><h1>Workshop</h1>
<form method=post action="https://forms.example.com/f/1"><p><label>Your name <input name=owner required></label></p>
<p><label>Workshop <select name=kind><option value="">Choose<option value=p>Pottery<option value=w>Weaving</select>
</label></p>
<p><label>Shown price <input name=price value=10></label></p><button>Book</button></form>"""


def tasks_file(folder: Path, *records: dict[str, Any]) -> Path:
    file = folder / "tasks.jsonl"
    file.write_text("".join(f"{json.dumps({'split': 'test', **record})}\n" for record in records))
    return file


def gold_outcomes(**settings: Any) -> list[Outcome]:
    """What the gold plans of all test tasks come to."""
    with Session(SiteEnvironment(SiteSettings(**settings))) as site:
        tasks = site.tasks("test")
        return site.run_many([(task, site.gold_plan(task)) for task in tasks])


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


JOIN = {"values": {"Your name": "Ann"}}


@pytest.mark.browser
def test_a_folder_of_pages_takes_what_its_forms_would_send_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text(PAGE)
    file = tasks_file(
        tmp_path,
        {"values": {"Your name": "Ann", "[name=kind]": "Weaving"}},
        {"values": {"owner": "Bo"}, "success": {"text": "no such words"}},
        {"values": {"owner": "Bo", "Workshop": "Skiing"}},
        {"values": {"Workshop": "Pottery"}},
    )
    with Session(SiteEnvironment(SiteSettings(folder=tmp_path / "site", tasks=file))) as site:
        tasks = site.tasks("test")
        known = site.environment.all_tasks
        right, refused = site.run_many([(task, site.gold_plan(task)) for task in tasks])
        (changed,) = site.run_many([(tasks[0], site.gold_plan(tasks[0]).replace("submit", 'fill p1.e3 "9"\nsubmit'))])
    assert right.is_success, right
    assert (refused.is_submitted, refused.validity_errors) == (False, ("the answer does not say 'no such words'",))
    assert (changed.is_submitted, changed.is_clean, changed.is_success) == (True, False, False)
    assert [item.reason for item in known.unsolvable] == [
        "Workshop: option absent",
        "Your name: required field without gold",
    ]


@pytest.mark.browser
def test_an_ignored_field_may_change(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    script = "document.forms[0].kind.onchange = () => { document.forms[0].price.value = 12 }"
    (tmp_path / "site" / "index.html").write_text(f"{PAGE}<script>{script}</script>")
    record = {"values": {"Your name": "Ann", "Workshop": "Weaving"}}
    file = tasks_file(tmp_path, record, {**record, "ignored": ["Shown price"]})
    outcomes = gold_outcomes(folder=tmp_path / "site", tasks=file)
    assert [item.is_success for item in outcomes] == [False, True]


DEPENDENT = """<!doctype html><html lang=en><title>Parcel</title><form><p><label>Country <select name=country>
<option value="">Choose<option value=be>Belgium<option value=no>Norway</select></label></p>
<p><label>City <select name=city></select></label></p><p><label>Weight <input name=kg></label></p><button>Send</button>
</form><script>
const form = document.forms[0], cities = { be: ["Ghent", "Ypres"], no: ["Oslo", "Bergen"] };
form.country.onchange = () => {
  form.city.replaceChildren(...cities[form.country.value].map((name) => new Option(name, name.slice(0, 2))));
};
form.onsubmit = (event) => {
  event.preventDefault();
  const [country, city, grams] = [...form.elements].map((field) => field.value);
  fetch("/parcels", { method: "POST", body: JSON.stringify({ country, city, grams }) });
};</script>"""


@pytest.mark.browser
def test_options_of_every_branch_are_read_and_a_field_may_be_sent_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text(DEPENDENT)
    values = ({"Country": "Norway", "City": "Bergen"}, {"Country": "Belgium", "City": "Ypres", "Weight": 3})
    settings = {"folder": tmp_path / "site", "tasks": tasks_file(tmp_path, *({"values": item} for item in values))}
    with Session(SiteEnvironment(SiteSettings(**settings))) as site:
        tasks = site.tasks("test")
        found = site.run_many([(task, site.gold_plan(task)) for task in tasks])
        told = site.environment.sent_otherwise
    assert [outcome.is_success for outcome in found] == [True, False]
    assert told == {"kg": "grams"}
    assert all(item.is_success for item in gold_outcomes(**settings, sent_as={"grams": "Weight"}))
    with pytest.raises(ConfigError, match=r"sent_as\.grams is 'Height'; no form has a field"):
        gold_outcomes(**settings, sent_as={"grams": "Height"})


@pytest.mark.browser
def test_an_asgi_application_is_served(tmp_path: Path) -> None:
    file = tasks_file(tmp_path, JOIN)
    (outcome,) = gold_outcomes(application=f"{OWN}/asgi.py:application", tasks=file)
    assert outcome.is_success, outcome


class LostOnce(TrustedExecutor):
    """Loses the page after the first button that it presses."""

    is_lost = False

    async def perform(self, tab: Any, steps: Any, *given: Any) -> Report:
        report = await super().perform(tab, steps, *given)
        if steps[0].is_press and not self.is_lost:
            self.is_lost = True
            await tab.loaded()
            raise EnvironmentFaultError("the page no longer answers")
        return report


@pytest.mark.browser
def test_a_command_is_started_reset_before_every_attempt_and_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.environments.site.environment.default_cache_dir", lambda: tmp_path / "cache" / "scout")
    taken = tmp_path / "taken"
    file = tasks_file(tmp_path, *[{**JOIN, "success": {"text": "number 1."}}] * 2)
    settings = {"start": f"{SERVER} {taken}", "tasks": file}
    with Session(SiteEnvironment(SiteSettings(**settings, reset=f"rm -f {taken}"))) as site:
        tasks = site.tasks("test")
        # The first attempt hands in, and is lost then.
        with monkeypatch.context() as patched:
            patched.setitem(EXECUTORS, "trusted", LostOnce())
            (retried,) = site.run_many([(tasks[0], site.gold_plan(tasks[0]))])
        assert (retried.is_success, retried.num_attempts) == (True, 2), retried
        outcomes = site.run_many([(task, site.gold_plan(task)) for task in tasks])
        child = int(Path(f"{taken}.pid").read_text())
        assert is_alive(child)
    assert [item.is_success for item in outcomes] == [True, True]
    assert not any(item.is_success for item in gold_outcomes(**settings))
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


@pytest.mark.browser
def test_nothing_but_the_site_is_reached_and_it_is_told(tmp_path: Path) -> None:
    file = tasks_file(tmp_path, {**JOIN, "start": "/away"}, {**JOIN, "start": "/picture"})
    with Session(SiteEnvironment(SiteSettings(start=f"{SERVER} {tmp_path}/taken", tasks=file))) as site:
        away, picture = site.tasks("test")
        plan = site.gold_plan(away)
        (page,) = site.observe_many([away])
        link = next(item.ref for item in page.controls if item.kind == "link")
        for executor, isolation in (("fast", "page"), ("trusted", "context")):
            (left,) = site.run_many([(away, f"click {link}\n{plan}")], executor=executor, isolation=isolation)
            assert (left.is_valid, left.is_submitted) == (True, False)
            assert left.actions[0].note == f"refused: {link} leads out of the site"
        (outcome,) = site.run_many([(picture, site.gold_plan(picture))])
        assert outcome.is_success
        assert "http://127.0.0.1:9/a.png" in site.environment.refused


@pytest.mark.browser
def test_a_start_page_that_leads_elsewhere_is_named(tmp_path: Path) -> None:
    file = tasks_file(tmp_path, {**JOIN, "start": "/elsewhere"})
    with pytest.raises(ConfigError, match=r"/elsewhere leads to http://127\.0\.0\.1:9/there, which is not the site"):
        gold_outcomes(start=f"{SERVER} {tmp_path}/taken", tasks=file)


@pytest.mark.parametrize("host", ["192.0.2.7", "shop.example.com"])
def test_another_machine_must_be_allowed_by_name(host: str) -> None:
    with pytest.raises(ConfigError, match=f"is on another machine.*--allow {host}"):
        Address(url=f"http://{host}/").upstream()
    upstream = Address(url=f"https://{host}:444/", allow=[host]).upstream()
    assert (upstream.host, upstream.port, upstream.origin) == (host, 444, f"https://{host}:444")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (f"{sys.executable} -c 'import sys; sys.exit(\"no such table\")'", "ended before it answered: no such table"),
        ("no-such-program --port 1", "'no-such-program' is not a program"),
        (f"{sys.executable} -c 'import time; time.sleep(60)'", "nothing answers at port .*write {port} into it"),
    ],
)
def test_a_command_that_does_not_serve_says_why(command: str, says: str) -> None:
    async def work() -> None:
        await Command(command=command, seconds=2.0).start()

    with pytest.raises(ConfigError, match=says):
        asyncio.run(work())


@pytest.mark.browser
@pytest.mark.parametrize("own", [{"reset": "true"}, {"port": 1}])
def test_a_site_that_is_put_back_or_has_one_port_is_open_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: dict[str, Any]
) -> None:
    monkeypatch.setattr("harness.environments.site.environment.default_cache_dir", lambda: tmp_path / "cache" / "scout")
    if "port" in own:
        with socket.create_server(("127.0.0.1", 0)) as free:
            own = {"port": free.getsockname()[1]}
    file = tasks_file(tmp_path, {**JOIN, "success": {"text": "number"}})
    settings = SiteSettings(start=f"{SERVER} {tmp_path / 'taken'}", tasks=file, **own)
    with Session(SiteEnvironment(settings)) as first:
        assert len(first.tasks("test")) == 1
        with (
            Session(SiteEnvironment(settings)) as second,
            pytest.raises(ConfigError, match="is open in another process"),
        ):
            second.tasks("test")
    with Session(SiteEnvironment(settings)) as third:
        assert len(third.tasks("test")) == 1


def test_a_port_that_another_program_has_is_not_taken_for_the_commands() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answered = threading.Thread(target=_answer_once, args=[other])
        answered.start()
        with pytest.raises(ConfigError, match=f"something answers at port {port} already"):
            asyncio.run(Command(command=f"{sys.executable} -m http.server {port}", port=port).start())
        answered.join()


def _answer_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


def test_a_guard_that_is_told_to_end_ends_all_that_it_started() -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, GUARD, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as guard:
        assert guard.stdout is not None
        child = int(guard.stdout.readline())
        guard.terminate()
        guard.wait(20)
    assert not is_alive(child)


def test_a_reset_that_does_not_end_is_ended_and_told(tmp_path: Path) -> None:
    script = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(ConfigError, match="does not end within 2 s"):
        asyncio.run(run_hook(f'{sys.executable} -c "{script}"', seconds=2.0))
    assert not is_alive(int((tmp_path / "pid").read_text()))
    with pytest.raises(ConfigError, match="reset 'no-such-program': 'no-such-program' is not a program"):
        asyncio.run(run_hook("no-such-program"))


@pytest.mark.parametrize(
    "form",
    [
        "<form action=//forms.example.com/f>",
        "<form method=post action=' https://forms.example.com/f'>",
        "<button formaction='https://forms.example.com/f'>",
        '<input type=submit formaction="//forms.example.com/f">',
    ],
)
def test_a_page_of_a_folder_sends_its_forms_nowhere_else(tmp_path: Path, form: str) -> None:
    (tmp_path / "index.html").write_text(form)
    page = page_of(tmp_path / "index.html")
    assert "forms.example.com" not in page and "/__received" in page


@pytest.mark.parametrize("port", ["80a", "99999"])
def test_an_address_with_an_impossible_port_is_told(port: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a site"):
        Address(url=f"http://127.0.0.1:{port}").upstream()


def test_a_draft_gives_a_list_without_options_nothing() -> None:
    control = Control(ref="p1.e1", kind="multiselect", name="Extras", field="extras", required=True)
    line = draft(Observation(titles=("",), controls=(control,)), "/", random.Random(0))
    assert line["values"] == {"Extras": []}


def test_a_control_without_a_label_stands_for_nothing_else() -> None:
    control = Control(ref="p1.e1", kind="text", name="", field="owner")
    seen = Observed(
        page=Observation(titles=("",), controls=(control,)), choices={}, identities={}, defaults={}
    )  # fmt: skip
    form = seen.form(parse_plan('fill p1.e1 "Ann"'), None)
    assert form.read({"owner": ("Ann",), "ids[]": ("7",)}) == {"owner": ("Ann",)}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 1 is not a JSON object"),
        ('{"values": {}}', "values: .*at least 1"),
        ('{"value": {"a": 1}}', "values: Field required"),
        ('{"values": {"a": 1}, "start": "signup"}', "start is 'signup'; expected a path"),
        ('{"values": {"a": 1}, "success": {"textt": "x"}}', "success.textt: Extra inputs"),
        ("", "has no task"),
    ],
)
def test_a_line_that_is_no_task_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "tasks.jsonl").write_text(line)
    with pytest.raises(ConfigError, match=says):
        read_tasks(tmp_path / "tasks.jsonl")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "no source given; expected one of url, folder, application, start"),
        ({"url": "http://127.0.0.1:1", "start": "x"}, "url and start given"),
        ({"url": "http://127.0.0.1:1", "port": 3}, "port is given without start"),
        ({"folder": Path(), "isolation": "arena"}, "isolation is arena"),
        ({"folder": Path(), "python": "python3"}, "python is given without application"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SiteSettings(**settings)
