"""The recording proxy over plain HTTP: what a page asks for is what the application is asked for."""

from __future__ import annotations

import asyncio
import http.client
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from harness.recorder import RecordingProxy, Upstream, ask
from harness.recorder.upstream import Answer
from harness.sites.server import LoopbackServer


async def _echo(request: Request) -> Response:
    query = request.scope["query_string"].decode()
    return PlainTextResponse(request.scope["raw_path"].decode() + (f"?{query}" if query else ""))


def _get(url: str, target: str) -> str:
    port = urlsplit(url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", target, headers={"Host": f"f1.localhost:{port}"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "target",
    ["/my%20file.js", "/%C3%BC", "/100%25", "/a%2Fb", "/what%3F", "/one%23two", "//twice", "/p?q=%C3%BC+%26&r"],
)
def test_an_address_reaches_the_application_as_it_was_asked_for(target: str) -> None:
    async def run() -> str:
        application, proxy = LoopbackServer(Starlette(routes=[Route("/{path:path}", _echo)])), RecordingProxy()
        await application.start()
        await proxy.start()
        try:
            proxy.upstream = Upstream(port=urlsplit(application.base_url).port or 0)
            return await asyncio.to_thread(_get, proxy.url("f1", "/"), target)
        finally:
            await proxy.stop()
            await application.stop()

    assert asyncio.run(run()) == target


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
