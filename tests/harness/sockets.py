"""What a Chromium did at its sockets, from its own network log, which every socket of the process writes to."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sockets:
    """connected: addresses that a TCP connection was tried to. num_datagrams: sent by UDP, wherever to.

    A UDP "connect" sends nothing: in this way Chromium asks whether there is IPv6. It does not count.
    """

    connected: tuple[str, ...]
    num_datagrams: int

    @property
    def foreign(self) -> tuple[str, ...]:
        """Addresses that are not loopback."""
        return tuple(address for address in self.connected if not is_loopback(address))


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.rsplit(":", 1)[0].strip("[]")).is_loopback


def read_sockets(path: Path) -> Sockets:
    """Read a log written by `--log-net-log=<path>`, after the browser has ended."""
    text = path.read_text().rstrip()
    # A browser that was ended has not closed the list, and may have been writing; an event is a line.
    is_whole = text.endswith("}") and '"polledData"' in text
    log = json.loads(text if is_whole else f"{text}\n".rpartition("},\n")[0] + "}]}")
    types = log["constants"]["logEventTypes"]
    connected = [
        event["params"]["address"]
        for event in log["events"]
        if event["type"] == types["TCP_CONNECT_ATTEMPT"] and "address" in event.get("params", {})
    ]
    num_datagrams = sum(event["type"] == types["UDP_BYTES_SENT"] for event in log["events"])
    return Sockets(connected=tuple(connected), num_datagrams=num_datagrams)
