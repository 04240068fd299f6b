"""A web application on a free port of loopback, in the event loop that also drives the browser."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any

import uvicorn

from dllm_rl.errors import ConfigError

# The ports above 1023 that Chromium refuses to open (ERR_UNSAFE_PORT).
RESTRICTED_PORTS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)


class LoopbackServer:
    """Serves an ASGI application. port: 0 for any free one."""

    def __init__(self, app: Any, *, port: int = 0) -> None:
        self.app = app
        self._wanted_port = port
        self._port = 0
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen on a port that Chromium will open."""
        listener = _listen(self._wanted_port)
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            self.app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = _QuietServer(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop listening; what was received stays readable."""
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        await self._task
        self._server = self._task = None

    @property
    def base_url(self) -> str:
        """Origin, without a slash at the end."""
        if not self._port:
            raise ConfigError("the site server has no address yet. Call `await server.start()` first.")
        return f"http://127.0.0.1:{self._port}"


class _QuietServer(uvicorn.Server):
    """Leaves the signals of the process alone: the caller decides what Ctrl-C means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _listen(port: int) -> socket.socket:
    while True:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            listener.close()
            raise ConfigError(f"port {port} cannot be opened ({error.strerror}). Choose another one.") from error
        if port or listener.getsockname()[1] not in RESTRICTED_PORTS:
            return listener
        listener.close()
