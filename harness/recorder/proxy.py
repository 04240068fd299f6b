"""The proxy before an application: hands every request on, and keeps what pages sent and what was answered.

A rollout has a host name of its own (`f7.localhost`), so that pages are served unchanged, at their own addresses, and
two rollouts never mix. The application sees that name as its own, in Host and in Origin, unless it insists on another
one (`Upstream.authority`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from harness.recorder.payload import Fields, read_fields
from harness.recorder.upstream import Upstream, ask
from harness.sites.server import LoopbackServer

SETTLE_SECONDS = 1.0
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
    """

    method: str
    path: str
    is_document: bool
    fields: Fields
    status: int
    answer: bytes
    location: str = ""


@dataclass(slots=True)
class _Log:
    exchanges: list[Exchange] = field(default_factory=list)
    num_open: int = 0


class RecordingProxy(LoopbackServer):
    """Hands every request on to `upstream`."""

    def __init__(self) -> None:
        self.upstream = Upstream(port=0)
        self._logs: dict[str, _Log] = {}
        super().__init__(Starlette(routes=[Route("/{path:path}", self._hand_on, methods=_METHODS)]))

    def url(self, rollout_id: str, path: str) -> str:
        """Address of a page for one rollout."""
        self._logs[rollout_id] = _Log()
        return f"{self.base_url.replace('127.0.0.1', f'{rollout_id}.localhost')}{path}"

    def exchanges(self, rollout_id: str) -> list[Exchange]:
        """Documents that were loaded under this id, and all that was sent, in the order of the answers."""
        return self._logs[rollout_id].exchanges if rollout_id in self._logs else []

    async def settled(self, rollout_id: str) -> None:
        """Wait for what a page sends by script: two looks without a request under way, for a second at most."""
        num_quiet = 0
        for _ in range(round(SETTLE_SECONDS / 0.05)):
            await asyncio.sleep(0.05)
            num_quiet = 0 if self._logs[rollout_id].num_open else num_quiet + 1
            if num_quiet == 2:
                return

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
            body = await request.body()
            own = f"http://{request.headers['host']}"
            headers = dict(request.headers)
            answer = await asyncio.to_thread(
                ask, self.upstream, request.method, _address(request), body=body, headers=headers, own=own
            )
            is_document = request.headers.get("sec-fetch-mode") == "navigate"
            if is_document or request.method not in ("GET", "HEAD", "OPTIONS"):
                log.exchanges.append(
                    Exchange(
                        method=request.method,
                        path=request.url.path,
                        is_document=is_document,
                        fields=await read_fields(request),
                        status=answer.status,
                        answer=answer.body,
                        location=answer.header("location"),
                    )
                )
            response = Response(answer.body, status_code=answer.status)
            for name, value in answer.headers:
                response.headers.append(name, value)
            return response
        finally:
            log.num_open -= 1


def _address(request: Request) -> str:
    """Path and query as they came, percent signs and all."""
    query = request.scope["query_string"]
    return (request.scope["raw_path"] + (b"?" + query if query else b"")).decode("ascii")
