"""One browser for all tests of the harness, and a small server for pages of the tests' own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Control, Observation
from dllm_rl.session import Session
from harness.browser import BrowserPool
from harness.environments import FormEnvironment, FormSettings
from harness.execute import Execution, Executor, ServerView, execute
from harness.scout import Seen

T = TypeVar("T")
COUNTS = {"train": 15, "val": 15, "test": 15, "test_layout": 15}


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session[FormEnvironment]]:
    """One task of every form kind in every split; scouted anew, by one of the test processes for all of them."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "scouted"
    folder.mkdir(exist_ok=True)
    settings = FormSettings(counts=COUNTS, cache_dir=folder, shares_identical=False)
    with Session(FormEnvironment(settings)) as opened:
        yield opened


class Lab:
    """Runs plans on pages that a test writes itself. `answer` may be set to a handler of the test's own."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.pool = BrowserPool()
        self.html = ""
        self.num_posts = 0
        self.answer: Callable[[Request], Coroutine[Any, Any, Response]] = self._show
        self.base_url = ""
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def start(self) -> None:
        app = Starlette(routes=[Route("/{path:path}", self._handle, methods=["GET", "POST"])])
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
            await asyncio.sleep(0.01)
        self.base_url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/"

    async def stop(self) -> None:
        await self.pool.close()
        assert self._server is not None
        assert self._serving is not None
        self._server.should_exit = True
        await self._serving

    def show(self, body: str) -> None:
        """Serve this body at every address; what is sent from it is received without a word."""
        self.html = f"<!doctype html><html lang=en><title>Lab</title><body>{body}</body></html>"
        self.answer, self.num_posts = self._show, 0

    def plan(self, body: str, plan: str, executor: Executor) -> Execution:
        """Observe the page, run the plan on it; nothing is ever accepted."""
        self.show(body)
        return self.run(self._plan(plan, executor))

    async def _plan(self, plan: str, executor: Executor) -> Execution:
        server = ServerView(is_accepted=lambda: False, rejections=list)
        async with self.pool.tab("page") as tab:
            await tab.goto(self.base_url)
            page = read_page(await tab.page.evaluate(OBSERVE_ALL))
            return await execute(tab, executor, parse_plan(plan), page, server)

    async def _handle(self, request: Request) -> Response:
        self.num_posts += request.method == "POST"
        return await self.answer(request)

    async def _show(self, request: Request) -> Response:
        return HTMLResponse(self.html if request.method == "GET" else "<h1>Received</h1>")


# Hidden controls too, since a scout that tried all branches would know them.
OBSERVE_ALL = """() => {
  const hidden = document.querySelectorAll('[hidden]');
  hidden.forEach((node) => { node.hidden = false; });
  const seen = window.__dllm.inventory();
  hidden.forEach((node) => { node.hidden = true; });
  return seen;
}"""


def read_page(inventory: dict[str, Any]) -> Observation:
    """Number the controls of a one-page observation."""
    seen = [Seen.read(record) for record in inventory["controls"]]
    controls: list[Control] = [item.control(f"p1.e{at}", None) for at, item in enumerate(seen, start=1)]
    return Observation(titles=(inventory["title"],), controls=tuple(controls))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    opened = Lab()
    opened.run(opened.start())
    yield opened
    opened.run(opened.stop())
    opened.runner.close()
