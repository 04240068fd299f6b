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

from harness.recorder import RecordingProxy
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
            proxy.upstream = urlsplit(application.base_url).port or 0
            return await asyncio.to_thread(_get, proxy.url("f1", "/"), target)
        finally:
            await proxy.stop()
            await application.stop()

    assert asyncio.run(run()) == target
