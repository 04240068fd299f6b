"""A session with an OpenEnv server: one WebSocket, one message there and one back."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dllm_rl.errors import ConfigError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

CONNECT_SECONDS = 20.0
ANSWER_SECONDS = 120.0
MAX_MESSAGE = 16 * 2**20


class OpenEnvError(Exception):
    """The server said that it could not do what it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a server answers to a reset or an action.

    Attributes:
        observation: Fields of the observation.
        reward: Reward of the action; None where there is none.
        is_done: Whether the episode has ended.
    """

    observation: Mapping[str, Any]
    reward: float | None
    is_done: bool


class Connection:
    """One session. Raises OSError where the server or the episode is lost, and OpenEnvError for what is refused."""

    def __init__(self, base_url: str) -> None:
        self.address = f"{base_url.replace('http', 'ws', 1)}/ws"
        self._socket: ClientConnection | None = None

    async def reset(self, options: Mapping[str, Any]) -> Step:
        """Begin an episode."""
        return _step(await self._ask({"type": "reset", "data": dict(options)}))

    async def step(self, action: Mapping[str, Any]) -> Step:
        """Act."""
        return _step(await self._ask({"type": "step", "data": dict(action)}))

    async def close(self) -> None:
        """End the session. Safe to call twice."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None

    async def _ask(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        try:
            async with asyncio.timeout(CONNECT_SECONDS + ANSWER_SECONDS):
                if self._socket is None:
                    self._socket = await connect(
                        self.address, proxy=None, max_size=MAX_MESSAGE, open_timeout=CONNECT_SECONDS
                    )
                await self._socket.send(json.dumps(message))
                answer = json.loads(await self._socket.recv())
        except WebSocketException as error:
            self._socket = None
            raise OSError(f"the connection ended: {error}") from error
        if answer.get("type") == "error":
            raise OpenEnvError(answer["data"].get("message", "the server gave no reason"))
        return answer["data"]


def _step(data: Mapping[str, Any]) -> Step:
    reward, is_done = data.get("reward"), bool(data.get("done"))
    told = data.get("metadata")
    # As a server of ours says it: without a reward, since its environment or its judge lost the episode.
    if is_done and reward is None and isinstance(told, Mapping) and told.get("is_valid") is False:
        raise OSError(f"the server lost the episode: {told.get('fault') or 'it does not say why'}")
    return Step(
        observation=data.get("observation", {}),
        reward=None if reward is None else float(reward),
        is_done=is_done,
    )


def ask_json(base_url: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What a server answers over HTTP; None where it has no such page. Raises ConfigError where it does not answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(base_url + path, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=CONNECT_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{base_url}{path} does not answer as an OpenEnv server does: {error}") from None
