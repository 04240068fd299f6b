"""An environment as the package `openenv` makes them: it likes to be asked kindly. `echo.py <port>`."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app


class Said(Action):
    """What is said."""

    message: str


class Echoed(Observation):
    """What comes back."""

    echoed: str


class Echo(Environment[Said, Echoed, State]):
    """Episodes of one action."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Echoed:
        """Begin."""
        return Echoed(echoed="Say something.")

    def step(self, action: Said, timeout_s: float | None = None, **_: Any) -> Echoed:
        """Answer."""
        return Echoed(echoed=action.message, done=True, reward=float("please" in action.message))

    @property
    def state(self) -> State:
        """Nothing."""
        return State()


if __name__ == "__main__":
    app = create_fastapi_app(Echo, Said, Echoed, max_concurrent_envs=8)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
