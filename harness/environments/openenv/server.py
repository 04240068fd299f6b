"""An environment of ours as an OpenEnv server: every session is an episode of its own.

`reset` takes a task, by `split` and `index`, by `task` (its id), or drawn from a `seed`. Its answer is the prompt.
`step` takes `{"plan": text}`: a whole plan, or one turn of an environment of episodes. The reward comes with the end of
the episode; one that the environment lost has none. Gold values are never told.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from dllm_rl.environment import Environment
from dllm_rl.episodes import Episode, Modes, Reply, whole_outcome
from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from dllm_rl.records.rollout import Attempt, Completion, Turn, rewarded
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.reward import Reward
from harness.sites.server import LoopbackServer

MAX_SESSIONS = 64
_TEXT = {"type": "string"}
_WHAT_IS_READ = {"text": _TEXT, "notes": {"type": "array", "items": _TEXT}, "is_success": {"type": "boolean"}}
SCHEMA = {
    "action": {"type": "object", "properties": {"plan": _TEXT}, "required": ["plan"]},
    "observation": {"type": "object", "properties": _WHAT_IS_READ},
    "state": {"type": "object", "properties": {"episode_id": _TEXT, "step_count": {"type": "integer"}, "task": _TEXT}},
}


class _RefusedError(Exception):
    """What a client asked for is refused; `code` is one of the protocol's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _WholePlan(Episode):
    """A task of whole plans, as the episode of one turn."""

    def __init__(self, environment: Environment, task: Task) -> None:
        self.environment, self.task = environment, task

    async def start(self) -> Reply:
        """The page."""
        page = await self.environment.observe(self.task)
        return Reply(observation=page, outcome=Outcome(task_id=self.task.id))

    async def step(self, plan: str) -> Reply:
        """Run the plan."""
        return Reply(observation=None, outcome=await self.environment.run(self.task, plan))

    async def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True, kw_only=True)
class _Session:
    """Where a client's episode stands.

    Attributes:
        id: Name of the episode.
        task: The task; None before the first reset.
        page: The page as it is now; None where no episode is under way.
    """

    id: str = ""
    task: Task | None = None
    episode: Episode | None = None
    page: Observation | None = None
    turns: tuple[Turn, ...] = field(default=())

    def state(self) -> dict[str, Any]:
        """What the protocol calls the state."""
        return {"episode_id": self.id, "step_count": len(self.turns), "task": self.task.id if self.task else None}

    async def end(self) -> None:
        """Give back what the episode holds."""
        if self.episode is not None:
            await self.episode.close()
        self.episode = self.page = None


class OpenEnvServer(LoopbackServer):
    """Serves an environment. `start` opens it, `stop` closes it.

    Args:
        environment: The environment.
        reward: Reward of an episode.
        name: Name under which the server calls it.
        port: Port on loopback; 0 for a free one.
        max_sessions: Sessions at a time; a further one is refused.
    """

    def __init__(
        self,
        environment: Environment,
        reward: Reward,
        *,
        name: str,
        port: int = 0,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self.environment, self.reward, self.name, self.max_sessions = environment, reward, name, max_sessions
        self.num_sessions = 0
        self._places = asyncio.Semaphore(environment.concurrency)
        self._numbers = itertools.count(1)
        routes = [
            WebSocketRoute("/ws", self._serve),
            Route("/health", _answer({"status": "healthy"})),
            Route("/metadata", _answer({"name": name, "description": (type(environment).__doc__ or "").strip()})),
            Route("/schema", _answer(SCHEMA)),
            Route("/list_environments", _answer([name])),
            Route(f"/{name}/splits", _answer([{"name": split, "type": _kind(split)} for split in environment.splits])),
            *(
                Route(f"/{name}/{path}", self._tell, methods=["POST"])
                for path in ("tasks", "num_tasks", "task", "task_range")
            ),
        ]
        super().__init__(Starlette(routes=routes), port=port)

    async def start(self) -> None:
        """Open the environment and listen."""
        await self.environment.open()
        await super().start()

    async def stop(self) -> None:
        """End all sessions and close the environment."""
        await super().stop()
        await self.environment.close()

    async def _serve(self, socket: WebSocket) -> None:
        await socket.accept()
        if self.num_sessions >= self.max_sessions:
            message = f"{self.max_sessions} sessions are open, which is all that this server takes"
            await socket.send_json(_error("CAPACITY_REACHED", message))
            await socket.close()
            return
        self.num_sessions += 1
        session = _Session()
        try:
            while True:
                text = await socket.receive_text()
                answer = await self._answered(session, text)
                if answer is None:
                    await socket.close()
                    return
                await socket.send_json(answer)
        except WebSocketDisconnect:
            pass
        finally:
            self.num_sessions -= 1
            await session.end()

    async def _answered(self, session: _Session, text: str) -> dict[str, Any] | None:
        """The answer to a message; None for the one that ends the session."""
        try:
            message = json.loads(text)
            kind, data = message["type"], message.get("data") or {}
            if not isinstance(data, dict):
                raise TypeError
        except (ValueError, RecursionError):
            return _error("INVALID_JSON", "the message is not JSON")
        except (KeyError, TypeError, AttributeError):
            return _error("VALIDATION_ERROR", 'expected {"type": ..., "data": {...}}')
        try:
            match kind:
                case "reset":
                    return {"type": "observation", "data": await self._reset(session, data)}
                case "step":
                    return {"type": "observation", "data": await self._step(session, data)}
                case "state":
                    return {"type": "state", "data": session.state()}
                case "close":
                    return None
        except _RefusedError as error:
            return _error(error.code, str(error))
        except ConfigError as error:
            return _error("EXECUTION_ERROR", str(error))
        return _error("UNKNOWN_TYPE", f"'{kind}' is none of reset, step, state, close")

    async def _reset(self, session: _Session, data: Mapping[str, Any]) -> dict[str, Any]:
        task = self._chosen(data)
        await session.end()
        episode = self.environment.begin(task, Modes()) if self.environment.is_episodic else None
        session.id = str(data.get("episode_id") or f"e{next(self._numbers)}")
        session.task, session.turns = task, ()
        session.episode = episode or _WholePlan(self.environment, task)
        async with self._places:
            reply = await session.episode.start()
        return await self._told(session, reply)

    async def _step(self, session: _Session, data: Mapping[str, Any]) -> dict[str, Any]:
        plan = data.get("plan")
        if not isinstance(plan, str):
            raise _RefusedError("VALIDATION_ERROR", 'expected {"plan": "<text>"}')
        if session.episode is None or session.page is None:
            raise _RefusedError("EXECUTION_ERROR", "no episode is under way. Reset first.")
        async with self._places:
            reply = await session.episode.step(plan)
        session.turns += (Turn(observation=session.page, completion=Completion(plan=plan), outcome=reply.outcome),)
        return await self._told(session, reply)

    async def _told(self, session: _Session, reply: Reply) -> dict[str, Any]:
        """What a client may know; at the end of an episode, its reward."""
        assert session.task is not None
        session.page = reply.observation
        notes = [item.note for item in reply.outcome.actions]
        if session.page is not None:
            text = Notebook().prompt(session.task, session.turns, session.page)
            return _observation(text, notes, metadata={"task": session.task.id})
        outcome = whole_outcome(session.turns, reply.outcome)
        attempt = Attempt(task=session.task, turns=session.turns, outcome=outcome)
        (rollout,) = await asyncio.to_thread(rewarded, self.reward, [attempt])
        await session.end()
        is_valid = rollout.outcome.is_valid
        metadata = {"task": session.task.id, "is_valid": is_valid, "fault": rollout.outcome.fault_reason}
        return {
            **_observation("", notes, is_success=outcome.is_success, metadata=metadata),
            "reward": rollout.reward.value if is_valid else None,
            "done": True,
        }

    def _chosen(self, data: Mapping[str, Any]) -> Task:
        split = data.get("split", self.environment.splits[0])
        tasks = self._tasks(split)
        if not tasks:
            raise _RefusedError("VALIDATION_ERROR", f"the split {split} has no task")
        if "task" in data:
            found = next((item for item in tasks if item.id == data["task"]), None)
            if found is None:
                raise _RefusedError("VALIDATION_ERROR", f"no task '{data['task']}' in the split {split}")
            return found
        index = data.get("index")
        if index is None:
            # Without a seed, any task.
            seed = data.get("seed")
            if not isinstance(seed, int | float | str | None):
                raise _RefusedError("VALIDATION_ERROR", f"seed is {seed}; expected a number")
            return random.Random(seed).choice(tasks)
        if not isinstance(index, int) or not 0 <= index < len(tasks):
            raise _RefusedError("VALIDATION_ERROR", f"index is {index}; expected 0 to {len(tasks) - 1}")
        return tasks[index]

    def _tasks(self, split: Any) -> Sequence[Task]:
        """The tasks of a split, which may have none."""
        if split not in self.environment.splits:
            known = ", ".join(self.environment.splits)
            raise _RefusedError("VALIDATION_ERROR", f"no split '{split}'. Known: {known}")
        return self.environment.tasks(split)

    async def _tell(self, request: Request) -> Response:
        """The tasks of a split, without what is wanted."""
        try:
            asked = await request.json()
            tasks = [
                {"id": task.id, "index": index, "instruction": task.instruction}
                for index, task in enumerate(self._tasks(asked["split"]))
            ]
            match request.url.path.rpartition("/")[2]:
                case "tasks":
                    return JSONResponse({"tasks": tasks, "env_name": self.name})
                case "num_tasks":
                    return JSONResponse({"num_tasks": len(tasks)})
                case "task":
                    return JSONResponse({"task": tasks[asked["index"]]})
            return JSONResponse({"tasks": tasks[asked.get("start") : asked.get("stop")]})
        except _RefusedError as error:
            return JSONResponse({"detail": str(error)}, status_code=400)
        except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
            return JSONResponse({"detail": 'expected {"split": <name>, "index": <number>}'}, status_code=422)


def _kind(split: str) -> str:
    return {"train": "train", "val": "validation"}.get(split, "test")


def _answer(record: Any) -> Any:
    async def answer(request: Request) -> Response:
        return JSONResponse(record)

    return answer


def _error(code: str, message: str) -> dict[str, Any]:
    return {"type": "error", "data": {"code": code, "message": message}}


def _observation(
    text: str, notes: Sequence[str], *, is_success: bool = False, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    read = {"text": text, "notes": list(notes), "is_success": is_success, "metadata": dict(metadata)}
    return {"observation": read, "reward": None, "done": False, "metadata": dict(metadata)}
