"""Whatever ends a session, no process of it is left; what it returns is in the order of what was asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.session import Session, end_processes
from harness.browser.faults import quota_cores
from harness.browser.pool import MAX_PLACES
from harness.environments import FormEnvironment, FormSettings
from harness.rewards import Shaped
from tests.processes import Forked


def run_thousands(folder: Path) -> None:
    settings = FormSettings(counts={"train": 1}, kinds=("contact",), cache_dir=folder, shares_identical=False)
    try:
        with Session(FormEnvironment(settings)) as session:
            (task,) = session.tasks("train")
            pairs = [(task, session.gold_plan(task))] * 5_000
            print(*session.pids, flush=True)
            session.run_many(pairs)
    except KeyboardInterrupt:
        print("interrupted", flush=True)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.browser
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_no_browser_outlives_its_session(tmp_path: Path, end: signal.Signals) -> None:
    process = Forked(run_thousands, tmp_path, output=tmp_path / "said")
    while not (said := process.output.read_text()).endswith("\n"):
        assert process.code is None, process.end()
        time.sleep(0.02)
    pids = [int(word) for word in said.split()]
    assert pids
    assert all(map(is_running, pids))
    time.sleep(0.5)
    os.killpg(process.pid, end) if end is signal.SIGINT else process.send(end)
    # Beside what asyncio says of pipes that the browser's driver closed.
    output = process.end(60).removeprefix(said)
    assert ("interrupted" in output.splitlines()) == (end is signal.SIGINT)
    deadline = time.monotonic() + 20
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, pids))


@pytest.mark.browser
def test_outcomes_come_in_order_and_results_as_they_end(session: Session[FormEnvironment]) -> None:
    pairs = [(task, session.gold_plan(task) if at % 2 else "") for at, task in enumerate(session.tasks("train")[:8])]
    ended: list[int] = []
    outcomes = session.run_many(pairs, on_result=lambda index, outcome: ended.append(index))
    assert [outcome.task_id for outcome in outcomes] == [task.id for task, _ in pairs]
    assert [Shaped()(outcome) for outcome in outcomes] == [float(at % 2) for at in range(8)]
    assert sorted(ended) == list(range(8))


@pytest.mark.browser
def test_a_session_can_be_closed_twice_and_used_again(tmp_path: Path) -> None:
    session = Session(FormEnvironment(FormSettings(counts={"train": 1}, cache_dir=tmp_path, kinds=("contact",))))
    for _ in range(2):
        (task,) = session.tasks("train")
        (outcome,) = session.run_many([(task, session.gold_plan(task))])
        assert Shaped()(outcome) == 1.0
        session.close()
        session.close()


def test_tasks_need_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM_RL_CHROMIUM", "no-such-browser")
    assert len(Session(FormEnvironment(FormSettings(counts={"val": 7}))).tasks("val")) == 7


def test_concurrency_follows_cores_and_isolation_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.browser.pool.usable_cores", lambda: 3)
    assert FormSettings().num_places("arena") == 12 == 2 * FormSettings().num_places("page")
    monkeypatch.setattr("harness.browser.pool.usable_cores", lambda: 64)
    assert FormSettings().num_places("page") == MAX_PLACES
    assert {FormSettings(concurrency=5).num_places(mode) for mode in ("arena", "context")} == {5}


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 2), ("max 100000\n", None), ("", None)])
def test_a_quota_is_read_in_cores(tmp_path: Path, text: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert quota_cores(tmp_path / "cpu.max") == cores
    assert quota_cores(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": {"tset": 3}}, "Did you mean 'test'"),
        ({"isolation": "pages"}, "Did you mean 'page'"),
        ({"executor": "trust"}, "Did you mean 'trusted'"),
        ({"concurrency": 0}, "at least 1"),
        ({"counts": {"test": -1}}, "expected a number of tasks"),
        ({"dials": (3,)}, "expected some of 0, 1, 2"),
        ({"difficulties": (2,)}, "has no difficulties"),
        ({"world": "rich", "size": "full"}, "as large as its difficulty"),
    ],
)
def test_settings_are_checked(settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FormSettings(**settings)


def test_a_process_is_asked_to_end_before_it_is_forced_to(tmp_path: Path) -> None:
    tidy = f"import pathlib, signal; signal.signal(15, lambda *_: (pathlib.Path('{tmp_path}/tidy').touch(), exit()))"
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN)"
    rest = "; import time; print(flush=True); time.sleep(60)"
    with ExitStack() as stack:
        made = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", code + rest], stdout=subprocess.PIPE))
            for code in (tidy, stubborn)
        ]
        for process in made:
            assert process.stdout is not None
            process.stdout.readline()
            threading.Thread(target=process.wait).start()
        end_processes([process.pid for process in made], seconds=1.0)
        assert [process.wait(10) for process in made] == [0, -signal.SIGKILL]
    assert (tmp_path / "tidy").exists()
