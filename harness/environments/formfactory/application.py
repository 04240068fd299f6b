"""The application of a checkout in a process of its own, and the proxy before it that keeps what was sent and answered.

The process runs on a copy of the checkout, so that what it writes never reaches the user's. A rollout has a host name
of its own (`f7.localhost`), so that pages are served unchanged, at their own addresses, and two rollouts never mix.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dllm_rl.errors import ConfigError
from harness.sites.server import LoopbackServer

START_SECONDS = 30.0
STOP_SECONDS = 5.0
# What a form page needs is small; recordings and pictures of a data set are not copied.
MAX_FILE_BYTES = 5_000_000
_LAUNCHER = Path(__file__).with_name("launch.py")


class ApplicationProcess:
    """The application's process. `python` is the interpreter that has the application's packages."""

    def __init__(self, folder: Path, application: str, *, python: str = sys.executable) -> None:
        # Absolute, for a process in another folder; links stay, since a virtual environment's Python is one.
        found = shutil.which(python)
        if found is None:
            raise ConfigError(
                f"'{python}' is not a program. Give the path of the Python that has the application's packages."
            )
        self.folder, self.application, self.python = folder, application, os.path.abspath(found)
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._complaints = b""
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Copy, start, and wait for the port. Raises ConfigError with the application's last line if it fails."""
        self._copy = tempfile.TemporaryDirectory(prefix="dllm_rl_formfactory_")
        place = Path(self._copy.name) / "checkout"
        await asyncio.to_thread(shutil.copytree, self.folder, place, ignore=_unneeded)
        file, _, attribute = self.application.rpartition(":")
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            self.python, str(_LAUNCHER), f"{place / file}:{attribute}", cwd=place, stdin=pipe, stdout=pipe, stderr=pipe
        )
        self._reading = asyncio.create_task(self._listen())
        try:
            async with asyncio.timeout(START_SECONDS):
                assert self._process.stdout is not None
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line.strip().isdigit():
            await self.stop()
            words = self._complaints.decode(errors="replace").strip().splitlines()
            raise ConfigError(
                f"the application {self.application} in {self.folder} does not start: "
                f"{words[-1] if words else 'no message'}. "
                "Install its packages here, or give the Python that has them."
            )
        self.port = int(line)

    async def stop(self) -> None:
        """End the process and remove the copy."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            assert self._reading is not None
            await self._reading
            self._process = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    async def _listen(self) -> None:
        """Keep the end of stderr; a pipe that nobody reads would block the process."""
        assert self._process is not None
        assert self._process.stderr is not None
        while part := await self._process.stderr.read(65_536):
            self._complaints = (self._complaints + part)[-10_000:]


def _unneeded(folder: str, names: list[str]) -> set[str]:
    paths = [Path(folder) / name for name in names]
    return {
        path.name
        for path in paths
        if path.name in (".git", "__pycache__", ".venv", "node_modules")
        or path.is_symlink()
        or (path.is_file() and path.stat().st_size > MAX_FILE_BYTES)
    }


UPSTREAM_SECONDS = 20.0
SETTLE_SECONDS = 1.0
# Lengths and connections are each side's own business.
_OWN_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"})
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One form that the application received.

    Attributes:
        path: Where it was sent.
        fields: HTML values by name; files by their file name.
        status: Status of the answer.
        answer: Body of the answer.
    """

    path: str
    fields: Mapping[str, tuple[str, ...]]
    status: int
    answer: bytes

    @property
    def is_accepted(self) -> bool:
        """Taken: a 2xx or 3xx, and where the answer is a JSON record, one that does not call itself an error."""
        if not 200 <= self.status < 400:
            return False
        try:
            record = json.loads(self.answer)
        except ValueError:
            return True
        return not (isinstance(record, dict) and (record.get("error") or record.get("success") is False))


@dataclass(slots=True)
class _Log:
    sent: list[Sent] = field(default_factory=list)
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

    def sent(self, rollout_id: str) -> list[Sent]:
        """Forms sent under this id, in order."""
        return self._logs[rollout_id].sent if rollout_id in self._logs else []

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
            address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            headers = {name: value for name, value in request.headers.items() if name not in _OWN_HEADERS}
            status, kept, answer = await asyncio.to_thread(_ask, self.upstream, request.method, address, body, headers)
            if request.method == "POST":
                fields = await _fields(request)
                log.sent.append(Sent(path=request.url.path, fields=fields, status=status, answer=answer))
            return _answer(status, kept, answer)
        finally:
            log.num_open -= 1


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


async def _fields(request: Request) -> dict[str, tuple[str, ...]]:
    """Every value of every name; applications that keep the first one only do so on their side."""
    if "json" in request.headers.get("content-type", ""):
        return _json_fields(await request.body())
    fields: dict[str, list[str]] = {}
    async with request.form() as form:
        for name, value in form.multi_items():
            text = value if isinstance(value, str) else value.filename or ""
            fields.setdefault(name, []).append(text.replace("\r\n", "\n"))
    return {name: tuple(value for value in values if value) for name, values in fields.items()}


def _json_fields(body: bytes) -> dict[str, tuple[str, ...]]:
    try:
        record = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(record, dict):
        return {}
    lists = {name: value if isinstance(value, list) else [value] for name, value in record.items()}
    return {name: tuple(_text(value) for value in values if _text(value)) for name, values in lists.items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else ""
    return "" if value is None else str(value)
