"""The built-in sites for agents of other people: tasks as JSON, pages as HTML, the verdict from what was received.

`GET /tasks` lists id and instruction, and addresses of files that a task offers for upload. `POST /episodes` with
`{"task": id}` answers an episode's id and the address that it starts at. `GET /episodes/<id>` says what the server
received so far; once it has accepted the form, also what was wanted and what that is worth. In between an agent drives
whatever browser it likes.
"""

from __future__ import annotations

import itertools
import json
import mimetypes
from collections.abc import Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dllm_rl import registry
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.reward import OutcomeReward
from harness.execute import Execution
from harness.judge import Evidence, judge
from harness.sites import SiteServer, make_site, site_defaults
from harness.sites.values import content_of, offered_files

MAX_BODY = 10_000
MAX_SHOWN = 40


async def _short_body(request: Request) -> bytes:
    """The body of a request. Raises ValueError for one that is longer than any that is expected."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise ValueError("too long")
    return body


class PublicSites:
    """Tasks and episodes over HTTP, beside the pages of the sites. Episodes live as long as the server."""

    def __init__(self, tasks: Sequence[Task], *, port: int = 0) -> None:
        self.tasks = {task.id: task for task in tasks}
        self._episodes: dict[str, Task] = {}
        self._ids = itertools.count(1)
        routes = [
            Route("/tasks", self._list),
            Route("/episodes", self._begin, methods=["POST"]),
            Route("/episodes/{episode}", self._judge),
            Route("/files/{name}", self._file),
        ]
        self.server = SiteServer(port=port, routes=routes)

    async def _list(self, request: Request) -> Response:
        tasks = []
        for task in self.tasks.values():
            files = [f"/files/{name}" for name in offered_files(make_site(task.site))]
            record = {"id": task.id, "instruction": task.instruction, "dial": task.dial}
            tasks.append({**record, "files": files} if files else record)
        return JSONResponse(tasks)

    async def _file(self, request: Request) -> Response:
        """A file that a task offers for upload."""
        name = request.path_params["name"]
        if not any(name in offered_files(make_site(task.site)) for task in self.tasks.values()):
            return JSONResponse({"error": f"no task offers '{name}'"}, status_code=404)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content_of(name), media_type=kind)

    async def _begin(self, request: Request) -> Response:
        try:
            task = self.tasks[json.loads(await _short_body(request))["task"]]
        except (ValueError, RecursionError, KeyError, TypeError):
            return JSONResponse({"error": 'expected {"task": "<an id of /tasks>"}'}, status_code=422)
        except ClientDisconnect:
            return Response(status_code=400)
        episode, start = self.begin(task)
        return JSONResponse({"episode": episode, "instruction": task.instruction, "start_url": start}, status_code=201)

    def begin(self, task: Task) -> tuple[str, str]:
        """A new episode of a task, and the address that it starts at."""
        episode = f"a{next(self._ids)}"
        self._episodes[episode] = task
        return episode, self.server.start_url(task.site, episode)

    async def _judge(self, request: Request) -> Response:
        episode = request.path_params["episode"]
        if episode not in self._episodes:
            message = f"no episode '{episode[:MAX_SHOWN]}'. Begin one: POST /episodes"
            return JSONResponse({"error": message}, status_code=404)
        outcome = self.outcome(episode)
        # What was wanted is told when nothing can be changed any more: the first accepted form is the one that counts.
        told = {"wanted", "is_correct"} if outcome.is_submitted else set()
        fields = [
            {"name": item.name, "received": item.server, **{name: getattr(item, name) for name in sorted(told)}}
            for item in outcome.fields
        ]
        return JSONResponse(
            {
                "task": outcome.task_id,
                "is_success": outcome.is_success,
                "is_submitted": outcome.is_submitted,
                "rewards": {name: cls()(outcome) for name, cls in _of_outcomes()},
                "fields": fields,
                "num_submissions": outcome.num_submissions,
                "num_rejected": outcome.num_rejected,
                "pages_reached": outcome.pages_reached,
                "num_pages": outcome.num_pages,
            }
        )

    def forget(self, episode: str) -> None:
        """Forget an episode."""
        self._episodes.pop(episode, None)
        self.server.forget(episode)

    def outcome(self, episode: str) -> Outcome:
        """What an episode is worth by now. The server alone is asked, so an unsent form counts as untouched."""
        task = self._episodes[episode]
        site = make_site(task.site)
        sent = self.server.submissions(episode)
        # The first accepted form is the one that counts: what is sent after it changes nothing.
        num_counted = next((at for at, item in enumerate(sent, start=1) if item.accepted), len(sent))
        return judge(
            Evidence(
                task=task,
                page=Observation(titles=tuple(page.title for page in site.pages), controls=()),
                plan=parse_plan(""),
                execution=Execution(),
                submissions=sent[:num_counted],
                pages_reached=self.server.pages_reached(episode),
                defaults=site_defaults(site),
            )
        )


def _of_outcomes() -> list[tuple[str, type[OutcomeReward]]]:
    """The rewards that are functions of the outcome, which is all that is known of an agent with its own client."""
    return [(name, cls) for name, cls in registry.items("reward") if issubclass(cls, OutcomeReward)]
