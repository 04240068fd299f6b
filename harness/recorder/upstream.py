"""Where the proxy hands requests on to, and how an application that insists on its own name gets to see it."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

UPSTREAM_SECONDS = 20.0
# Of one answer, or of what is sent; what a form page needs is far smaller.
MAX_BYTES = 64 * 2**20
# Lengths and connections are each side's own business.
_OWN_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"})
# A compressed answer would have to be unpacked before it can be read, so that none is asked for.
_OWN_REQUEST_HEADERS = _OWN_HEADERS | {"accept-encoding"}
_TEXTS = ("text/", "application/json", "application/javascript", "application/xhtml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """An application.

    Attributes:
        port: Port at which it listens.
        host: Host at which it listens.
        scheme: How it is spoken to.
        authority: What it takes for its own name, as the header Host has it: then addresses in what it is sent and in
            what it answers are translated. "" where it takes any name.
    """

    port: int
    host: str = "127.0.0.1"
    scheme: Literal["http", "https"] = "http"
    authority: str = ""

    @property
    def origin(self) -> str:
        """Scheme and name, as it writes them in its addresses."""
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an application answered, in the proxy's addresses."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str:
        """Value of a header; "" where there is none."""
        return next((value for other, value in self.headers if other.lower() == name), "")


# It has no end, and a page that gets this answer does not ask again.
EVENT_STREAM = Answer(status=501, body=b"event streams are not handed on")


def ask(
    upstream: Upstream,
    method: str,
    address: str,
    *,
    body: bytes,
    headers: Mapping[str, str],
    own: str,
    seconds: float = UPSTREAM_SECONDS,
    opened: Callable[[socket.socket], None] = lambda _: None,
) -> Answer:
    """Hand a request on. An application that does not answer, or with more than `MAX_BYTES`, is a 502.

    Args:
        upstream: The application.
        method: Method of the request.
        address: Path and query.
        body: Body of the request.
        headers: Headers of the request, in lower case.
        own: Origin under which the browser knows the application.
        seconds: How long it may say nothing.
        opened: Is told of the socket; to shut it down ends the wait.
    """
    sent = {name: value for name, value in headers.items() if name not in _OWN_REQUEST_HEADERS}
    if upstream.authority:
        sent = {name: value.replace(own, upstream.origin) for name, value in sent.items()}
        sent["host"] = upstream.authority
    kind = http.client.HTTPSConnection if upstream.scheme == "https" else http.client.HTTPConnection
    connection = kind(upstream.host, upstream.port, timeout=seconds)
    try:
        connection.connect()
        opened(connection.sock)
        connection.request(method, address, body or None, sent)
        response = connection.getresponse()
        if method == "GET" and (response.getheader("content-type") or "").startswith("text/event-stream"):
            return EVENT_STREAM
        kept = tuple((name, value) for name, value in response.getheaders() if name.lower() not in _OWN_HEADERS)
        answer = Answer(status=response.status, headers=kept, body=_body(response))
    except (OSError, http.client.HTTPException) as error:
        return Answer(status=502, body=f"the application does not answer: {error}".encode())
    finally:
        connection.close()
    return _translated(answer, upstream.origin, own) if upstream.authority else answer


def _body(response: http.client.HTTPResponse) -> bytes:
    """The whole body. Raises HTTPException where it is cut or too long."""
    body = bytearray()
    while part := response.read(2**16):
        body += part
        if len(body) > MAX_BYTES:
            raise http.client.HTTPException(f"its answer has more than {MAX_BYTES // 2**20} MiB")
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _translated(answer: Answer, theirs: str, own: str) -> Answer:
    """Addresses of the application become those under which the browser knows it; its cookies belong to that name."""
    headers = []
    for name, value in answer.headers:
        if name.lower() == "strict-transport-security":
            continue
        if name.lower() == "set-cookie":
            value = re.sub(r";\s*domain=[^;]*", "", value, flags=re.I)
        headers.append((name, value.replace(theirs, own).replace("upgrade-insecure-requests", "")))
    body = answer.body
    if answer.header("content-type").startswith(_TEXTS):
        for slash in ("/", r"\/"):
            body = body.replace(theirs.replace("/", slash).encode(), own.replace("/", slash).encode())
    return Answer(status=answer.status, headers=tuple(headers), body=body)
