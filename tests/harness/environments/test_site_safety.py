"""Pages that are not ours reach nothing but their site: read at the browser's sockets, and at an address beside it."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dllm_rl.records.tasks import Fault, Outcome
from dllm_rl.session import Session
from harness.browser import BrowserPool
from harness.environments import SiteEnvironment, SiteSettings
from tests.harness.hostile import hostile_plan
from tests.harness.sockets import Sockets, read_sockets
from tests.soak_sizes import soak_size

SERVER = Path(__file__).parent / "own_site" / "hostile.py"
pytestmark = pytest.mark.browser
# Where requests go that the launch arguments refuse: a proxy that nobody runs.
DEAD_PROXY = "127.0.0.1:9"
# Plans of one browser, whose log of sockets is read as a whole.
CHUNK = 500


@contextmanager
def elsewhere() -> Iterator[tuple[int, list[str]]]:
    """A port beside the site's, and who came to it."""
    came: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                came.append(connection.recv(200).decode(errors="replace"))
                connection.close()

        threading.Thread(target=listen, daemon=True).start()
        yield listener.getsockname()[1], came
        listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def opened(
    tmp_path: Path, pages: list[str], log: Path | None = None
) -> Iterator[tuple[Session[SiteEnvironment], list[str]]]:
    """The hostile site with one task a page, and who came to the address beside it."""
    file = tmp_path / "tasks.jsonl"
    lines = ({"id": page, "start": f"/{page}", "values": {"Your name": "Ann"}, "split": "test"} for page in pages)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with elsewhere() as (port, came):
        environment = SiteEnvironment(SiteSettings(start=f"{sys.executable} {SERVER} {{port}} {port}", tasks=file))
        if log is not None:
            environment.pool = BrowserPool(arguments=[f"--log-net-log={log}"])
        with Session(environment) as site:
            yield site, came


MODES: Any = [("fast", "page"), ("trusted", "context")]


@pytest.mark.parametrize(("executor", "isolation"), MODES)
def test_a_page_that_leads_away_is_stopped_and_told(tmp_path: Path, executor: str, isolation: str) -> None:
    with opened(tmp_path, ["redirects", "elsewhere", "sockets", "downloads"]) as (site, came):
        tasks = {task.site[1:]: task for task in site.tasks("test")}
        pairs = [(task, site.gold_plan(task)) for task in tasks.values()]
        gold = dict(zip(tasks, site.run_many(pairs, executor=executor, isolation=isolation), strict=True))
        (page,) = site.observe_many([tasks["downloads"]])
        link = next(item.ref for item in page.controls if item.kind == "link")
        plan = f"click {link}\n{site.gold_plan(tasks['downloads'])}"
        (loaded,) = site.run_many([(tasks["downloads"], plan)], executor=executor, isolation=isolation)
        told = list(site.environment.refused)
    assert came == []
    # The form was taken; where its answer leads is nobody's business.
    assert gold["redirects"].is_success, gold["redirects"]
    assert (gold["elsewhere"].is_valid, gold["elsewhere"].is_submitted) == (True, False)
    assert gold["elsewhere"].actions[-1].note.endswith("leads out of the site")
    assert gold["sockets"].is_success and gold["downloads"].is_success
    assert (loaded.is_success, loaded.actions[0].status) == (True, "ok"), loaded
    assert len([address for address in told if address.startswith("ws://")]) == 2, told
    assert [address for address in told if address.endswith("/own")]


def run_hostile(
    tmp_path: Path, num_plans: int, seed: int, **modes: Any
) -> tuple[list[Outcome], Sockets, str, list[str]]:
    """Hostile plans on a hostile page: outcomes, sockets, the address of the site, and who came beside it."""
    log, rng = tmp_path / "net.json", random.Random(seed)
    with opened(tmp_path, ["everything", "refresh"], log) as (site, came):
        tasks = site.tasks("test")
        pages = site.observe_many(tasks)
        chosen = [rng.randrange(len(tasks)) for _ in range(num_plans)]
        outcomes = site.run_many([(tasks[at], hostile_plan(pages[at], rng)) for at in chosen], **modes)
        after = site.run_many([(task, site.gold_plan(task)) for task in tasks], **modes)
        assert all(item.is_success for item in after), after
        address = f"127.0.0.1:{site.environment.proxy.port}"
    return outcomes, read_sockets(log), address, came


def check_reached(sockets: Sockets, address: str, came: list[str]) -> None:
    assert came == []
    assert address in sockets.connected
    assert set(sockets.connected) <= {address, address.replace("127.0.0.1", "[::1]"), DEAD_PROXY}
    assert sockets.num_datagrams == 0


@pytest.mark.parametrize(("executor", "isolation"), MODES)
def test_hostile_plans_on_a_hostile_page_reach_the_site_alone(tmp_path: Path, executor: str, isolation: str) -> None:
    outcomes, sockets, address, came = run_hostile(tmp_path, 30, 1, executor=executor, isolation=isolation)
    check_reached(sockets, address, came)
    assert [item.fault_reason for item in outcomes if item.fault is Fault.ENVIRONMENT] == []


@pytest.mark.soak
@pytest.mark.timeout(14400)
def test_ten_thousand_hostile_plans_on_a_hostile_page_reach_the_site_alone(tmp_path: Path) -> None:
    num_plans, done, lost = soak_size("PLANS", 10_000), 0, []
    while done < num_plans:
        folder = tmp_path / str(done)
        folder.mkdir()
        count = min(CHUNK, num_plans - done)
        outcomes, sockets, address, came = run_hostile(folder, count, 100 + done, executor="fast", isolation="page")
        check_reached(sockets, address, came)
        done += count
        lost += [item.fault_reason for item in outcomes if item.fault is Fault.ENVIRONMENT]
        print(f"{done} hostile plans, nobody came beside the site; lost to the environment: {lost}", flush=True)
    assert len(lost) <= num_plans / 1000, lost
