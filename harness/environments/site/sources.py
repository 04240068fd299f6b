"""Where a site comes from: an address, a folder of pages, an application, or a command that starts a server.

Each source is started before the proxy that stands before it, and ends what it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from dllm_rl.errors import ConfigError
from harness.environments.recorded import ApplicationProcess
from harness.recorder import Upstream
from harness.sites.server import RESTRICTED_PORTS, LoopbackServer

START_SECONDS = 60.0
STOP_SECONDS = 5.0
HOOK_SECONDS = 60.0
GUARD = Path(__file__).with_name("guard.py")


class Source(Protocol):
    """A site that can be started and ended."""

    @property
    def pid(self) -> int | None:
        """The process that serves it, if that is ours."""
        ...

    async def start(self) -> Upstream:
        """Start it. Raises ConfigError where it does not answer."""
        ...

    async def stop(self) -> None:
        """End what was started."""
        ...


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost" or host.endswith(".localhost")


@dataclass(slots=True, kw_only=True)
class Address:
    """A server that runs already.

    Attributes:
        url: Its address; what follows the port is of no account.
        allow: Hosts beside this machine that may be reached.
        authority: The name that the application takes for its own; "" for any on this machine, and for the host's own
            elsewhere.
    """

    url: str
    allow: Sequence[str] = ()
    authority: str = ""
    pid: None = None

    def upstream(self) -> Upstream:
        """What the address says. Raises ConfigError where it is none, or names a host that is not allowed."""
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"'{self.url}' is not the address of a site: {error}. Correct it.") from None
        if parts.scheme not in ("http", "https") or not host:
            raise ConfigError(f"'{self.url}' is not the address of a site. Give one such as http://127.0.0.1:8000/.")
        if not is_loopback(host) and host not in self.allow:
            raise ConfigError(
                f"'{self.url}' is on another machine. If that site is yours and may be filled in by plans, allow its "
                f"host by name: --allow {host}, or the option allow: [{host}]."
            )
        scheme = "https" if parts.scheme == "https" else "http"
        port = port or (443 if scheme == "https" else 80)
        authority = self.authority or ("" if is_loopback(host) else parts.netloc.rpartition("@")[2])
        return Upstream(host=host, port=port, scheme=scheme, authority=authority)

    async def start(self) -> Upstream:
        """Ask whether it answers."""
        upstream = self.upstream()
        if not await asyncio.to_thread(_answers, upstream):
            raise ConfigError(f"nothing answers at {self.url}. Start the site first, or give --start with its command.")
        return upstream

    async def stop(self) -> None:
        """It is not ours to end."""


class Folder:
    """A folder of HTML, served as it is. Whatever its forms send, and wherever to, is taken with thanks."""

    pid: None = None

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigError(f"'{folder}' is no folder. Give a folder of HTML pages, or an address (http://...).")
        self._files = StaticFiles(directory=folder, html=True)
        route = Route("/{path:path}", self._serve, methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
        self._server = LoopbackServer(Starlette(routes=[route]))

    async def start(self) -> Upstream:
        """Serve the folder."""
        await self._server.start()
        return Upstream(port=self._server.port)

    async def stop(self) -> None:
        """Stop serving."""
        await self._server.stop()

    async def _serve(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return HTMLResponse(_THANKS)
        try:
            answer = await self._files.get_response(request.path_params["path"] or ".", request.scope)
        except HTTPException:
            if request.url.query:
                return HTMLResponse(_THANKS)
            raise
        path = getattr(answer, "path", "")
        if not str(path).endswith((".html", ".htm")):
            return answer
        return HTMLResponse(await asyncio.to_thread(page_of, Path(path)))


_THANKS = "<!doctype html><html lang=en><title>Received</title><h1>Received</h1><p>Thank you.</p>"
_AWAY = r"(?:https?:)?//"
_FORM_ADDRESS = re.compile(
    r"(<(?:form\b[^>]*?\s|(?:button|input)\b[^>]*?\sform)action\s*=\s*)"
    rf"(\"\s*{_AWAY}[^\"]*\"|'\s*{_AWAY}[^']*'|{_AWAY}[^\s>]*)",
    re.I,
)


def page_of(path: Path) -> str:
    """A page whose forms would be sent to somebody else's server: they are sent to ours, which knows no other."""
    return _FORM_ADDRESS.sub(lambda found: f'{found[1]}"/__received"', path.read_text("utf-8", errors="replace"))


class Application:
    """A WSGI or ASGI application, on a copy of its folder, so that what it writes does not reach the user's."""

    def __init__(self, application: str, *, python: str, authority: str = "") -> None:
        file, _, attribute = application.rpartition(":")
        if not Path(file).is_file():
            raise ConfigError(
                f"application '{application}': there is no file '{file}'. Give it as <file>:<attribute>, such as "
                "shop/app.py:app."
            )
        self._process = ApplicationProcess(Path(file).parent, f"{Path(file).name}:{attribute}", python=python)
        self._authority = authority

    @property
    def pid(self) -> int | None:
        """Process of the application."""
        return self._process.pid

    async def start(self) -> Upstream:
        """Start the process."""
        await self._process.start()
        return Upstream(port=self._process.port, authority=self._authority)

    async def stop(self) -> None:
        """End the process."""
        await self._process.stop()


@dataclass(slots=True, kw_only=True)
class Command:
    """A command that starts a server: `{port}` in it, and PORT in its environment, is where it must listen.

    Attributes:
        command: The command, as a shell would split it. It runs in a process group of its own, which ends with ours.
        port: Port at which it listens by itself; None for a free one, which it is told.
        authority: The name that the application takes for its own; "" for any.
        seconds: How long it may take to answer.
    """

    command: str
    port: int | None = None
    authority: str = ""
    seconds: float = START_SECONDS
    _process: asyncio.subprocess.Process | None = None
    _said: bytes = b""
    _reading: asyncio.Task[None] | None = field(default=None)

    @property
    def pid(self) -> int | None:
        """The process that guards the command's."""
        return self._process.pid if self._process else None

    async def start(self) -> Upstream:
        """Start it and wait until it answers."""
        port = self.port or _free_port()
        if self.port and await asyncio.to_thread(_answers, Upstream(port=port)):
            raise ConfigError(
                f"something answers at port {port} already, and '{self.command}' is to listen there. End that server, "
                "give another port, or give its address instead of start."
            )
        words = [word.replace("{port}", str(port)) for word in _split(self.command)]
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(GUARD), *words, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PORT": str(port)},
        )  # fmt: skip
        self._reading = asyncio.create_task(self._listen())
        upstream = Upstream(port=port, authority=self.authority)
        try:
            await self._until_it_answers(upstream)
        except BaseException:
            await self.stop()
            raise
        return upstream

    async def _until_it_answers(self, upstream: Upstream) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(self.seconds):
                has_answered = False
                while not has_answered:
                    has_answered = await asyncio.to_thread(_answers, upstream)
                    # Another program may have the port.
                    if self._process.returncode is not None:
                        raise ConfigError(f"'{self.command}' ended before it answered: {self._last_words()}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            told = "" if "{port}" in self.command else " Does it listen at the port in PORT? Else write {port} into it."
            raise ConfigError(
                f"'{self.command}' runs, but nothing answers at port {upstream.port} after {self.seconds:.0f} s: "
                f"{self._last_words()}.{told}"
            ) from None

    async def stop(self) -> None:
        """End the whole process group."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._process = None

    def _last_words(self) -> str:
        lines = self._said.decode(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"

    async def _listen(self) -> None:
        """Keep the end of its output; a pipe that nobody reads would block it."""
        assert self._process is not None
        assert self._process.stdout is not None
        while part := await self._process.stdout.read(65_536):
            self._said = (self._said + part)[-10_000:]


def _split(command: str, *, option: str = "start") -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{option} '{command}': {error}. Write the command as for a shell.") from None
    if not words or shutil.which(words[0]) is None:
        raise ConfigError(
            f"{option} '{command}': '{words[0] if words else ''}' is not a program. Give a command to run."
        )
    return words


def _free_port() -> int:
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        if port not in RESTRICTED_PORTS:
            return port


def _answers(upstream: Upstream) -> bool:
    """Whether a request is answered at all, whatever with."""
    kind = http.client.HTTPSConnection if upstream.scheme == "https" else http.client.HTTPConnection
    connection = kind(upstream.host, upstream.port, timeout=5)
    try:
        connection.request("HEAD", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


async def run_hook(command: str, seconds: float = HOOK_SECONDS) -> None:
    """Run the command that puts a site back to where it was. Raises ConfigError where it fails or does not end."""
    process = await asyncio.create_subprocess_exec(
        *_split(command, option="reset"), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    except TimeoutError:
        raise ConfigError(
            f"reset '{command}' does not end within {seconds:.0f} s. Expected a command that puts the site back and "
            "ends; mend it, or leave reset out."
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise ConfigError(
            f"reset '{command}' ended with code {process.returncode}: {lines[-1] if lines else 'it said nothing'}. "
            "Expected 0; mend the command, or leave reset out."
        )
