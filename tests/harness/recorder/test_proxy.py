"""The recording proxy over plain HTTP: what a page asks for is what the application is asked for."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlencode, urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from harness.recorder import RecordingProxy, Upstream, ask, upstream
from harness.recorder.upstream import Answer
from harness.sites.server import LoopbackServer


async def _echo(request: Request) -> Response:
    query = request.scope["query_string"].decode()
    return PlainTextResponse(request.scope["raw_path"].decode() + (f"?{query}" if query else ""))


NO_HEADERS: Mapping[str, str] = MappingProxyType({})
T = TypeVar("T")


def _asked(
    url: str, target: str, body: bytes | None = None, headers: Mapping[str, str] = NO_HEADERS
) -> tuple[int, str]:
    port = urlsplit(url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST" if body else "GET", target, body, {"Host": f"f1.localhost:{port}", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _get(url: str, target: str) -> str:
    return _asked(url, target)[1]


def proxied(
    work: Callable[[RecordingProxy, str], Awaitable[T]],
    serve: Callable[[Request], Awaitable[Response]],
    stretch: Callable[[float], float] = float,
) -> T:
    """Work with a proxy before an application that answers everything in one way; the address is that of a rollout."""

    async def run() -> T:
        route = Route("/{path:path}", serve, methods=["GET", "POST"])
        application, proxy = LoopbackServer(Starlette(routes=[route])), RecordingProxy(stretch)
        await application.start()
        await proxy.start()
        try:
            proxy.upstream = Upstream(port=application.port)
            return await work(proxy, proxy.url("f1", "/"))
        finally:
            await proxy.stop()
            await application.stop()

    return asyncio.run(run())


@pytest.mark.parametrize(
    "target",
    ["/my%20file.js", "/%C3%BC", "/100%25", "/a%2Fb", "/what%3F", "/one%23two", "//twice", "/p?q=%C3%BC+%26&r"],
)
def test_an_address_reaches_the_application_as_it_was_asked_for(target: str) -> None:
    async def work(proxy: RecordingProxy, url: str) -> str:
        return await asyncio.to_thread(_get, url, target)

    assert proxied(work, _echo) == target


LONG = "x" * 1_100_000
MANY = {f"row{number}": "1" for number in range(1100)}
FORM, PARTS = "application/x-www-form-urlencoded", "multipart/form-data"


@pytest.mark.parametrize(
    ("kind", "body", "num_fields"),
    [
        (FORM, urlencode(MANY), 1100),
        (FORM, f"state={LONG}", 1),
        (f"{PARTS}; boundary=b", f'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n{LONG}\r\n--b--\r\n', 1),
        (PARTS, "--b\r\n", 0),
    ],
)
def test_whatever_an_application_takes_is_recorded(kind: str, body: str, num_fields: int) -> None:
    async def work(proxy: RecordingProxy, url: str) -> int:
        status, answer = await asyncio.to_thread(_asked, url, "/kept", body.encode(), {"Content-Type": kind})
        assert (status, answer) == (200, "/kept")
        (exchange,) = proxy.exchanges("f1")
        return len(exchange.fields)

    assert proxied(work, _echo) == num_fields


async def _without_end(part: bytes) -> AsyncIterator[bytes]:
    while True:
        yield part
        await asyncio.sleep(0.02)


async def _endless(request: Request) -> Response:
    part = b"x" * 2**16 if request.url.path == "/long" else b"data: now\n\n"
    kind = "text/event-stream" if request.url.path == "/events" else "text/plain"
    return StreamingResponse(_without_end(part), media_type=kind)


def test_what_has_no_end_keeps_nothing_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(proxy: RecordingProxy, url: str) -> list[tuple[int, str]]:
        started = time.monotonic()
        found = await asyncio.gather(*(asyncio.to_thread(_asked, url, "/events") for _ in range(8)))
        monkeypatch.setattr(upstream, "MAX_BYTES", 60)
        found.append(await asyncio.to_thread(_asked, url, "/long"))
        monkeypatch.undo()
        found.append(await asyncio.to_thread(_asked, url, "/late"))
        assert time.monotonic() - started < 10
        assert list(proxy.refused) == ["http://localhost/events"]
        return found

    *streams, long, late = proxied(work, _endless, stretch=lambda seconds: seconds / 20)
    assert {status for status, _ in streams} == {501}
    assert long[0] == late[0] == 502
    assert "has more than" in long[1] and "does not answer within 1 s" in late[1]


async def _late(request: Request) -> Response:
    await asyncio.sleep(0.6)
    return PlainTextResponse("taken")


@pytest.mark.parametrize(
    ("seconds", "is_form", "is_answered"), [(5.0, True, True), (0.2, True, False), (0.2, False, True)]
)
def test_the_form_is_waited_for_as_long_as_a_page_is(seconds: float, is_form: bool, is_answered: bool) -> None:
    async def work(proxy: RecordingProxy, url: str) -> None:
        asked = asyncio.create_task(asyncio.to_thread(_asked, url, "/join", b"owner=Ann"))
        while not proxy.num_requests("f1"):  # noqa: ASYNC110 (the proxy has no event of it)
            await asyncio.sleep(0.01)
        assert await proxy.settled("f1", lambda _: is_form) is is_answered
        assert bool(proxy.exchanges("f1")) is (is_form and is_answered)
        await asked

    proxied(work, _late, stretch=lambda limit: seconds * limit / 5)


async def _insists(request: Request) -> Response:
    if request.headers["host"] != "shop.example.com":
        return PlainTextResponse("Bad Request (400)", status_code=400)
    body = f'<a href="https://shop.example.com/a">A</a> "https:\\/\\/shop.example.com\\/b" {request.headers["origin"]}'
    headers = {
        "Content-Type": "text/html",
        "Location": "https://shop.example.com/thanks",
        "Set-Cookie": "id=1; Domain=shop.example.com; Path=/",
        "Strict-Transport-Security": "max-age=9",
    }
    return Response(body, headers=headers)


def test_an_application_that_insists_on_its_name_sees_it_and_its_addresses_lead_to_the_proxy() -> None:
    """The application is spoken to in plain HTTP here; what it writes of itself is https."""

    async def run() -> tuple[Answer, str]:
        application = LoopbackServer(Starlette(routes=[Route("/", _insists)]))
        await application.start()
        try:
            upstream = Insisting(port=application.port, authority="shop.example.com")
            own = "http://f1.localhost:81"
            headers = {"host": "f1.localhost:81", "origin": own}
            return await asyncio.to_thread(ask, upstream, "GET", "/", body=b"", headers=headers, own=own), own
        finally:
            await application.stop()

    answer, own = asyncio.run(run())
    assert answer.status == 200
    escaped = own.replace("/", r"\/")
    assert answer.body.decode() == rf'<a href="{own}/a">A</a> "{escaped}\/b" {own}'
    assert answer.header("location") == f"{own}/thanks"
    assert answer.header("set-cookie") == "id=1; Path=/"
    assert answer.header("strict-transport-security") == ""


class Insisting(Upstream):
    @property
    def origin(self) -> str:
        return "https://shop.example.com"
