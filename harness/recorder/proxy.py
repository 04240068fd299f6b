"""The proxy before an application: hands every request on, and keeps what pages sent and what was answered.

A rollout has a host name of its own (`f7.localhost`), so that pages are served unchanged, at their own addresses, and
two rollouts never mix. The application sees that name as its own, in Host and in Origin, unless it insists on another
one (`Upstream.authority`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from harness.recorder.payload import Fields, read_fields
from harness.recorder.upstream import EVENT_STREAM, MAX_BYTES, UPSTREAM_SECONDS, Answer, Upstream, ask
from harness.sites.server import LoopbackServer

# How long a page is waited for that never stops asking, and how long the answer to the form is.
SETTLE_SECONDS = 1.0
FORM_SECONDS = 5.0
LOOK_SECONDS = 0.05
# Requests that wait for the application at a time; a page may hold several open.
NUM_THREADS = 64
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request of a page that said something, and the answer to it.

    Attributes:
        method: Its method.
        path: Path of its address.
        is_document: Whether its answer was to become a document.
        fields: What it said: values by name; files by their file name.
        status: Status of the answer.
        answer: Body of the answer.
        location: Where a redirect leads; "" for other answers.
        num_before: How many requests of the rollout came before it.
    """

    method: str
    path: str
    is_document: bool
    fields: Fields
    status: int
    answer: bytes
    location: str = ""
    num_before: int = 0


@dataclass(slots=True)
class _Log:
    """What a rollout sent: all that was answered, in the order of the answers, and what was not answered yet."""

    exchanges: list[Exchange] = field(default_factory=list)
    asked: list[Exchange] = field(default_factory=list)
    num_requests: int = 0
    num_open: int = 0


class RecordingProxy(LoopbackServer):
    """Hands every request on to `upstream`.

    Args:
        stretch: Stretches a deadline that is given in seconds of an idle machine.

    Attributes:
        refused: Addresses of event streams, which are not handed on.
    """

    def __init__(self, stretch: Callable[[float], float] = float) -> None:
        self.upstream = Upstream(port=0)
        self.refused: dict[str, None] = {}
        self._stretch = stretch
        self._logs: dict[str, _Log] = {}
        self._threads: ThreadPoolExecutor | None = None
        super().__init__(Starlette(routes=[Route("/{path:path}", self._hand_on, methods=_METHODS)]))

    async def start(self) -> None:
        """Listen."""
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="recorder")
        await super().start()

    async def stop(self) -> None:
        """Stop listening, and end what still waits for the application."""
        await super().stop()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def url(self, rollout_id: str, path: str) -> str:
        """Address of a page for one rollout."""
        self._logs[rollout_id] = _Log()
        return f"{self.base_url.replace('127.0.0.1', f'{rollout_id}.localhost')}{path}"

    def exchanges(self, rollout_id: str) -> list[Exchange]:
        """Documents that were loaded under this id, and all that was sent, in the order of the answers."""
        return self._logs[rollout_id].exchanges if rollout_id in self._logs else []

    def num_requests(self, rollout_id: str) -> int:
        """How many requests came under this id so far."""
        return self._logs[rollout_id].num_requests

    async def settled(self, rollout_id: str, is_form: Callable[[Exchange], bool]) -> bool:
        """Wait for what a page sends by script: two looks without a request under way.

        Whatever else a page asks for is waited for a second, and the form as long as a page is that a form leads to.

        Returns:
            Whether the form, if it was sent, was answered.
        """
        started, num_quiet = time.monotonic(), 0
        while num_quiet < 2:
            await asyncio.sleep(LOOK_SECONDS)
            log, waited = self._logs[rollout_id], time.monotonic() - started
            is_form_open = any(map(is_form, log.asked))
            if is_form_open and waited > self._stretch(FORM_SECONDS):
                return False
            is_busy = is_form_open or (log.num_open > 0 and waited < self._stretch(SETTLE_SECONDS))
            num_quiet = 0 if is_busy else num_quiet + 1
        return True

    def forget(self, rollout_id: str) -> None:
        """Drop everything about a rollout."""
        self._logs.pop(rollout_id, None)

    async def _hand_on(self, request: Request) -> Response:
        rollout_id = (request.headers.get("host") or "").split(".")[0]
        log = self._logs.get(rollout_id)
        if log is None:
            return PlainTextResponse("no such rollout", status_code=404)
        log.num_open += 1
        try:
            return await self._recorded(log, request)
        finally:
            log.num_open -= 1

    async def _recorded(self, log: _Log, request: Request) -> Response:
        number, log.num_requests = log.num_requests, log.num_requests + 1
        if int(request.headers.get("content-length") or 0) > MAX_BYTES:
            return PlainTextResponse(f"more than {MAX_BYTES // 2**20} MiB were sent", status_code=413)
        await request.body()
        asked = Exchange(
            method=request.method,
            path=request.url.path,
            is_document=request.headers.get("sec-fetch-mode") == "navigate",
            fields=await read_fields(request),
            status=0,
            answer=b"",
            num_before=number,
        )
        log.asked.append(asked)
        try:
            answer = await self._answer_to(request)
        finally:
            log.asked.remove(asked)
        if answer is EVENT_STREAM:
            self.refused[f"http://localhost{request.url.path}"] = None
        if asked.is_document or request.method not in ("GET", "HEAD", "OPTIONS"):
            location = answer.header("location")
            log.exchanges.append(replace(asked, status=answer.status, answer=answer.body, location=location))
        response = Response(answer.body, status_code=answer.status)
        for name, value in answer.headers:
            response.headers.append(name, value)
        return response

    async def _answer_to(self, request: Request) -> Answer:
        """Ask the application, in a thread that ends with this call."""
        seconds, sockets = self._stretch(UPSTREAM_SECONDS), list[socket.socket]()
        work = functools.partial(
            ask, self.upstream, request.method, _address(request), body=await request.body(),
            headers=dict(request.headers), own=f"http://{request.headers['host']}", seconds=seconds,
            opened=sockets.append,
        )  # fmt: skip
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError:
            return Answer(status=502, body=f"the application does not answer within {seconds:.0f} s".encode())
        finally:
            for opened in sockets:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)


def _address(request: Request) -> str:
    """Path and query as they came, percent signs and all."""
    query = request.scope["query_string"]
    return (request.scope["raw_path"] + (b"?" + query if query else b"")).decode("ascii")
