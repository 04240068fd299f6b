"""The HTTP server of errands: one application on loopback for all episodes, which keeps what it received.

Addresses: `/e/<episode id>/<errand key>/<page key>`. A good answer redirects (303) to the next page, a bad one comes
back as an error page (422) with the answers kept. State is in memory under the episode id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from harness.errands.schema import Entry, Errand, Page
from harness.sites.schema import TICKED
from harness.sites.server import LoopbackServer, Submission

DONE = "done"
BUSY = "The service is busy and took nothing. Please send it again."
INTERRUPTED = "Your session has run out. Nothing was sent."


@dataclass(slots=True, kw_only=True)
class _Visit:
    """What the server knows of one episode.

    Attributes:
        answers: Values by field name, of all pages.
        seen: Keys of the pages that were shown, in order.
        counts: How often a page was refused ("busy <key>"), waited for ("wait <key>"), or interrupted.
        resume: The page that an interruption goes back to; "" for none.
        message: Message of the last answer where that was a difficulty of the task's own, else "".
    """

    errand: Errand
    answers: dict[str, tuple[str, ...]]
    seen: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    resume: str = ""
    message: str = ""
    submissions: list[Submission] = field(default_factory=list)


class ErrandServer(LoopbackServer):
    """Serves every errand to every episode id."""

    def __init__(self, *, port: int = 0) -> None:
        self._visits: dict[str, _Visit] = {}
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
        if key == DONE and any(item.accepted for item in visit.submissions):
            return _html(_render("done.html", errand=visit.errand, title="Done", message=visit.errand.done))
        page = visit.errand.page(key)
        if page is None:
            return PlainTextResponse("no such page", status_code=404)
        visit.message = ""
        if request.method == "GET":
            return self._show(visit, page)
        async with request.form() as form:
            return self._receive(visit, page, form)

    def _show(self, visit: _Visit, page: Page) -> Response:
        if page.num_waits and visit.counts[f"wait {page.key}"] >= page.num_waits:
            return RedirectResponse(page.next, status_code=303)
        visit.counts[f"wait {page.key}"] += 1
        notice = page.notice if page.key not in visit.seen else ""
        visit.seen.append(page.key)
        announced = INTERRUPTED if visit.resume and visit.resume != page.key else ""
        return _html(self._form(visit, page, notice=notice, announced=announced))

    def _form(
        self, visit: _Visit, page: Page, *, errors: Sequence[str] = (), notice: str = "", announced: str = ""
    ) -> str:
        return _render(
            "page.html",
            errand=visit.errand,
            page=page,
            title=page.title,
            answers=visit.answers,
            links=page.matching(visit.answers),
            errors=errors,
            notice=notice,
            announced=announced,
        )

    def _receive(self, visit: _Visit, page: Page, form: FormData) -> Response:
        """Take the answers of a page: refuse them, go on to the next page, or accept the record."""
        given = {item.name: _read(item, form) for item in page.entries}
        visit.answers.update(given)
        if visit.counts[f"busy {page.key}"] < page.num_refusals:
            visit.counts[f"busy {page.key}"] += 1
            visit.message = BUSY
            return _html(self._form(visit, page, announced=BUSY), status_code=503)
        errors = tuple(text for item in page.entries if (text := item.complaint(given[item.name])))
        if errors:
            visit.submissions.append(Submission(accepted=False, fields=_record(visit), errors=errors))
            return _html(self._form(visit, page, errors=errors), status_code=422)
        if page.interruption and not visit.counts[f"interrupted {page.key}"]:
            visit.counts[f"interrupted {page.key}"] += 1
            visit.resume = page.key
            return RedirectResponse(page.interruption, status_code=303)
        for name, value in page.gives:
            before = visit.answers.get(name, ()) if page.is_adding else ()
            visit.answers[name] = (*(item for item in before if item != value), value)
        following = page.after(visit.answers)
        if visit.resume and page.key != visit.resume:
            following, visit.resume = visit.resume, ""
        if not following:
            visit.submissions.append(Submission(accepted=True, fields=_record(visit)))
        return RedirectResponse(following or DONE, status_code=303)

    def _visit(self, request: Request) -> _Visit | None:
        """The state of an episode, made at its first request; None for an errand that does not exist or another one."""
        episode_id, key = request.path_params["episode_id"], request.path_params["errand_key"]
        if episode_id not in self._visits:
            try:
                errand = make_errand(key)
            except ConfigError:
                return None
            entries = [item for page in errand.pages for item in page.entries]
            self._visits[episode_id] = _Visit(errand=errand, answers={item.name: item.default for item in entries})
        visit = self._visits[episode_id]
        return visit if visit.errand.key == key else None


def _read(item: Entry, form: FormData) -> tuple[str, ...]:
    sent = tuple(text for value in form.getlist(item.name) if (text := str(value).strip()))
    if item.kind == "checkbox":
        return (TICKED,) if sent else ()
    return sent[:1]


def _record(visit: _Visit) -> dict[str, tuple[str, ...]]:
    return {name: visit.answers.get(name, ()) for name in visit.errand.defaults}


def _html(text: str, status_code: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status_code=status_code, headers={"Cache-Control": "no-store"})


@cache
def _templates() -> Environment:
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _render(name: str, **values: object) -> str:
    return _templates().get_template(name).render(**values)
