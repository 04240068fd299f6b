"""The HTTP server of errands: one application on loopback for all episodes, which keeps what it received.

Addresses: `/e/<episode id>/<errand key>/<page key>`. A good answer redirects (303) to the next page, a bad one comes
back as an error page (422) with the answers kept. State is in memory under the episode id.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dllm_rl.errors import ConfigError
from harness.errands.factory import make_errand
from harness.errands.schema import Entry
from harness.errands.visit import DONE, View, Visit
from harness.sites.schema import TICKED
from harness.sites.server import LoopbackServer, Submission


class ErrandServer(LoopbackServer):
    """Serves every errand to every episode id."""

    def __init__(self, *, port: int = 0) -> None:
        self._visits: dict[str, Visit] = {}
        route = Route("/e/{episode_id}/{errand_key}/{page_key}", self._page, methods=["GET", "POST"])
        super().__init__(Starlette(routes=[route]), port=port)

    def start_url(self, errand_key: str, episode_id: str) -> str:
        """Address of the first page for one episode."""
        return f"{self.base_url}/e/{episode_id}/{errand_key}/{make_errand(errand_key).pages[0].key}"

    def submissions(self, episode_id: str) -> tuple[Submission, ...]:
        """All that was handed in under this id, in order; also pages that were refused."""
        visit = self._visits.get(episode_id)
        return tuple(visit.submissions) if visit else ()

    def seen(self, episode_id: str) -> tuple[str, ...]:
        """Keys of the pages that were shown, in the order in which they were first."""
        visit = self._visits.get(episode_id)
        return tuple(dict.fromkeys(visit.seen)) if visit else ()

    def injected(self, episode_id: str) -> str:
        """The message of the last answer where that was a difficulty of the task's own, else ""."""
        visit = self._visits.get(episode_id)
        return visit.message if visit else ""

    def forget(self, episode_id: str) -> None:
        """Drop everything about an episode."""
        self._visits.pop(episode_id, None)

    @property
    def num_visits(self) -> int:
        """Episodes that are kept in memory."""
        return len(self._visits)

    async def _page(self, request: Request) -> Response:
        visit, key = self._visit(request), request.path_params["page_key"]
        if visit is None:
            return PlainTextResponse("no such errand", status_code=404)
        if key == DONE and visit.is_accepted:
            return _html(_render("done.html", errand=visit.errand, title="Done", message=visit.errand.done))
        page = visit.errand.page(key)
        if page is None:
            return PlainTextResponse("no such page", status_code=404)
        if request.method == "GET":
            return _answer(visit, visit.show(page))
        async with request.form() as form:
            return _answer(visit, visit.receive(page, {item.name: _read(item, form) for item in page.entries}))

    def _visit(self, request: Request) -> Visit | None:
        """The state of an episode, made at its first request; None for an errand that does not exist or another one."""
        episode_id, key = request.path_params["episode_id"], request.path_params["errand_key"]
        if episode_id not in self._visits:
            try:
                self._visits[episode_id] = Visit.of(make_errand(key))
            except ConfigError:
                return None
        visit = self._visits[episode_id]
        return visit if visit.errand.key == key else None


def _answer(visit: Visit, answer: View | str) -> Response:
    if isinstance(answer, str):
        return RedirectResponse(answer, status_code=303)
    title = answer.page.title
    return _html(_render("page.html", errand=visit.errand, title=title, view=answer), status_code=answer.status)


def _read(item: Entry, form: FormData) -> tuple[str, ...]:
    sent = tuple(text for value in form.getlist(item.name) if (text := str(value).strip()))
    if item.kind == "checkbox":
        return (TICKED,) if sent else ()
    return sent[:1]


def _html(text: str, status_code: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status_code=status_code, headers={"Cache-Control": "no-store"})


@cache
def _templates() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _render(name: str, **values: object) -> str:
    return _templates().get_template(name).render(**values)
