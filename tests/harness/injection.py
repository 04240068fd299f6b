"""A proxy of our own between browser and site server that breaks some of the requests, as networks and servers do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Literal

from harness.sites import SiteServer

Fault = Literal["500", "reset", "hang", "drip", "cut", "redirect loop", "garbage", "close"]
FAULTS: tuple[Fault, ...] = ("500", "reset", "hang", "drip", "cut", "redirect loop", "garbage", "close")
RESET_ON_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
AGAIN = b"?again"
Choose = Callable[[bytes], Fault | None]


def first(times: int, fault: Fault, *, method: bytes = b"") -> Choose:
    """Break the first `times` requests of a method (of any by default)."""
    left = times

    def choose(head: bytes) -> Fault | None:
        nonlocal left
        if left and head.startswith(method):
            left -= 1
            return fault
        return None

    return choose


def sometimes(share: float, faults: Sequence[Fault], rng: random.Random) -> Choose:
    """Break a share of all requests."""
    return lambda head: rng.choice(faults) if rng.random() < share else None


class InjectingServer(SiteServer):
    """The site server as it is reached through the proxy. num_injected counts what was broken."""

    def __init__(self, choose: Choose = lambda head: None) -> None:
        super().__init__()
        self.choose = choose
        self.num_injected = 0
        self._proxy: asyncio.Server | None = None

    async def start(self) -> None:
        await super().start()
        self._proxy = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        assert self._proxy is not None
        self._proxy.close()
        await super().stop()

    @property
    def base_url(self) -> str:
        assert self._proxy is not None
        return f"http://127.0.0.1:{self._proxy.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection: what comes back says so."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            fault = self.choose(head)
            self.num_injected += fault is not None
            await self._answer(fault, head, reader, writer)
        writer.close()

    async def _answer(
        self, fault: Fault | None, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = head.split(b" ", 2)[1]
        if fault == "redirect loop" or path.endswith(AGAIN):
            where = path.removesuffix(AGAIN) + AGAIN
            writer.write(b"HTTP/1.1 307 Again\r\nLocation: " + where + b"\r\nContent-Length: 0\r\n\r\n")
        elif fault == "500":
            writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\nConnection: close\r\n\r\nOops")
        elif fault == "garbage":
            writer.write(b"\x00\xff" * 200)
        elif fault == "reset":
            writer.get_extra_info("socket").setsockopt(*RESET_ON_CLOSE)
        elif fault == "hang":
            await asyncio.sleep(120)
        elif fault != "close":
            await self._forward(fault, head, reader, writer)

    async def _forward(
        self, fault: Fault | None, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        upstream, sink = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            sink.write(head.replace(b"Connection: keep-alive", b"Connection: close"))
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            sink.write(await reader.readexactly(int(length.split(b":")[1])))
            answer = await upstream.read(-1)
            if fault == "cut":
                writer.write(answer[: len(answer) // 2])
            elif fault == "drip":
                await _drip(answer, writer)
            else:
                writer.write(answer)
            await writer.drain()
        finally:
            sink.close()


async def _drip(answer: bytes, writer: asyncio.StreamWriter) -> None:
    """So slowly that no deadline for a page is kept."""
    for at in range(0, len(answer), 8):
        writer.write(answer[at : at + 8])
        await writer.drain()
        await asyncio.sleep(1.0)
