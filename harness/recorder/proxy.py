"""The proxy before an application: hands every request on, and keeps what pages sent and what was answered.

A rollout has a host name of its own (`f7.localhost`), so that pages are served unchanged, at their own addresses, and
two rollouts never mix. The application sees that name as its own, in Host and in Origin.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from harness.recorder.payload import Fields, read_fields
from harness.sites.server import LoopbackServer

UPSTREAM_SECONDS = 20.0
SETTLE_SECONDS = 1.0
# Lengths and connections are each side's own business.
_OWN_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"})
# A compressed answer would have to be unpacked before it can be read, so that none is asked for.
_OWN_REQUEST_HEADERS = _OWN_HEADERS | {"accept-encoding"}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request of a page that said something, and the answer to it.

    Attributes:
        method: Its method.
        is_document: Whether its answer was to become a document.
        fields: What it said: values by name; files by their file name.
        status: Status of the answer.
        answer: Body of the answer.
    """

    method: str
    is_document: bool
    fields: Fields
    status: int
    answer: bytes


@dataclass(slots=True)
class _Log:
    exchanges: list[Exchange] = field(default_factory=list)
    num_open: int = 0


class RecordingProxy(LoopbackServer):
    """Hands every request on to `upstream`, a port of loopback."""

    def __init__(self) -> None:
        self.upstream = 0
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
            headers = {name: value for name, value in request.headers.items() if name not in _OWN_REQUEST_HEADERS}
            status, kept, answer = await asyncio.to_thread(
                _ask, self.upstream, request.method, _address(request), body, headers
            )
            is_document = request.headers.get("sec-fetch-mode") == "navigate"
            if is_document or request.method not in ("GET", "HEAD", "OPTIONS"):
                log.exchanges.append(
                    Exchange(
                        method=request.method,
                        is_document=is_document,
                        fields=await read_fields(request),
                        status=status,
                        answer=answer,
                    )
                )
            return _answer(status, kept, answer)
        finally:
            log.num_open -= 1


def _address(request: Request) -> str:
    """Path and query as they came, percent signs and all."""
    query = request.scope["query_string"]
    return (request.scope["raw_path"] + (b"?" + query if query else b"")).decode("ascii")


def _ask(
    port: int, method: str, address: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=UPSTREAM_SECONDS)
    try:
        connection.request(method, address, body or None, dict(headers))
        response = connection.getresponse()
        kept = [(name, value) for name, value in response.getheaders() if name.lower() not in _OWN_HEADERS]
        return response.status, kept, response.read()
    except (OSError, http.client.HTTPException) as error:
        return 502, [], f"the application does not answer: {error}".encode()
    finally:
        connection.close()


def _answer(status: int, headers: list[tuple[str, str]], content: bytes) -> Response:
    response = Response(content, status_code=status)
    for name, value in headers:
        response.headers.append(name, value)
    return response
