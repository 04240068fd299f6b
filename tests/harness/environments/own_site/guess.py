"""An OpenEnv server of somebody else, in two files of theirs: guess a number, in several turns. `guess.py <port>`.

What is no number it cannot do. A seed decides the number. A reset with `dense` pays for guesses that are near.
"""

from __future__ import annotations

import json
import random
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def play(socket: WebSocket) -> None:
    """One session."""
    await socket.accept()
    number, is_dense = 0, False
    try:
        while True:
            message = json.loads(await socket.receive_text())
            said, reward = "Guess a number from 1 to 9.", None
            if message["type"] == "reset":
                number = random.Random(message["data"]["seed"]).randint(1, 9)
                is_dense = message["data"].get("dense", False)
            elif not message["data"]["guess"].strip().isdigit():
                await socket.send_json(
                    {"type": "error", "data": {"message": "not a number", "code": "EXECUTION_ERROR"}}
                )
                continue
            else:
                guess = int(message["data"]["guess"])
                said = "Right." if guess == number else "Higher." if guess < number else "Lower."
                reward = 1 - abs(guess - number) / 8 if is_dense else float(guess == number)
            record = {"observation": {"said": said, "metadata": {}}, "reward": reward, "done": said == "Right."}
            await socket.send_json({"type": "observation", "data": record})
    except WebSocketDisconnect:
        pass


async def schema(request: Request) -> JSONResponse:
    """What an action is."""
    fields = {"guess": {"type": "string"}, "metadata": {"type": "object"}}
    return JSONResponse({"action": {"properties": fields, "required": ["guess"]}})


if __name__ == "__main__":
    app = Starlette(routes=[WebSocketRoute("/ws", play), Route("/schema", schema)])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
