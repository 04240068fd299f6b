"""`dllm-rl serve RUN`: the report of a running or finished grid on loopback, new whenever the grid has moved on.

The page is rendered in memory: the run folder is only read. It differs from report.html by one script, which asks for
the version of the page and loads it again when that has changed. Films that the page links to are served as they lie.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from dllm_rl.errors import ConfigError
from experiments.report.build import build_report
from experiments.report.page import render
from experiments.run.folder import RunFolder

# Judging a large grid takes seconds: it may take this share of one core, so that a look slows no training.
_MAX_SHARE = 0.05
_POLL_SECONDS = 3
_SCRIPT = """\
const seen = document.currentScript.dataset.version;
setInterval(async () => {
  const answer = await fetch("/version").catch(() => null);
  if (answer && answer.ok && (await answer.text()) !== seen) location.reload();
}, %d);
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
# A film is a page with a script in it; it may reach nothing, not even this server.
_FILM_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'; sandbox allow-scripts",
    "Cache-Control": "no-store",
}


class LiveReport:
    """The report of a run folder, judged again when its files have changed and the last judging was long enough ago."""

    def __init__(self, root: Path, *, max_share: float = _MAX_SHARE) -> None:
        self.root = root
        self._max_share = max_share
        self._lock = Lock()
        self._not_before = 0.0
        self._state = ""
        self.page = self.twin = self.version = ""

    def refresh(self) -> None:
        """Bring page, twin and version up to date, as far as that is due."""
        with self._lock:
            state = _state_of(self.root)
            if state == self._state or (self.page and time.monotonic() < self._not_before):
                return
            started = time.monotonic()
            report = build_report(self.root)
            self.twin = json.dumps(report, ensure_ascii=False, allow_nan=False)
            self.version = hashlib.blake2b(self.twin.encode(), digest_size=8).hexdigest()
            script = f'<script src="/live.js" data-version="{self.version}"></script></body>'
            self.page = render(report).replace("</body>", script)
            self._state = state
            now = time.monotonic()
            self._not_before = now + (now - started) / self._max_share


def _state_of(root: Path) -> str:
    """Changes whenever a file that a report reads does."""
    found = hashlib.blake2b(digest_size=8)
    for path in RunFolder(root).report_inputs():
        facts = path.stat()
        found.update(f"{path}:{facts.st_mtime_ns}:{facts.st_size};".encode())
    return found.hexdigest()


def make_app(root: Path, *, max_share: float = _MAX_SHARE) -> Starlette:
    """The application: / the page, /report.json its twin, /version and /live.js for the refresh, and the films."""
    live = LiveReport(root, max_share=max_share)

    # Plain functions: starlette runs them on a thread, since judging computes.
    def page(request: Request) -> Response:
        live.refresh()
        return HTMLResponse(live.page, headers=_HEADERS)

    def twin(request: Request) -> Response:
        live.refresh()
        return Response(live.twin, media_type="application/json", headers=_HEADERS)

    def version(request: Request) -> Response:
        live.refresh()
        return PlainTextResponse(live.version, headers=_HEADERS)

    def script(request: Request) -> Response:
        return Response(_SCRIPT % (1000 * _POLL_SECONDS), media_type="text/javascript", headers=_HEADERS)

    def film(request: Request) -> Response:
        """A film of the run folder, and nothing else of it."""
        path = RunFolder(root).film(request.path_params["path"])
        if path is None:
            return PlainTextResponse("no such film", status_code=404, headers=_HEADERS)
        return HTMLResponse(path.read_text(encoding="utf-8"), headers=_FILM_HEADERS)

    routes = [
        Route("/", page),
        Route("/report.json", twin),
        Route("/version", version),
        Route("/live.js", script),
        Route("/{path:path}", film),
    ]
    # Another page in the reader's browser must not read the report under a name that it points to this machine.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return Starlette(routes=routes, middleware=[hosts])


def serve(run: Path, *, port: int) -> int:
    """Serve a run's report on 127.0.0.1 until Ctrl-C; port 0 takes a free one."""
    app = make_app(RunFolder.find(run).root)
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(f"no port {port} ({error.strerror}). Give another: --port 0 takes a free one.") from None
    print(f"report: http://127.0.0.1:{listener.getsockname()[1]}/ (Ctrl-C ends)", flush=True)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
    return 0
