"""The HTTP server of the built-in sites: one application on loopback for all rollouts, which keeps what it received.

Addresses: `/r/<rollout id>/<site key>/` is page 1, `.../2` the second page, `.../done` the page after acceptance.
Every page is a real `<form method=post>`; a good answer redirects (303) to the next page, a bad one comes back as an
error page (422) with the answers kept. State is in memory under the rollout id, so that rollouts never meet: start
each walk under an id of its own, since a site remembers what was answered under an id.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from dllm_rl.errors import ConfigError
from harness.sites.answers import extra_errors, is_visible, page_errors, site_defaults
from harness.sites.factory import make_site
from harness.sites.render import render_done, render_form_page
from harness.sites.schema import DRAFT, TICKED, Answers, Extra, Site, SiteField
from harness.sites.values import content_of

# The ports above 1023 that Chromium refuses to open (ERR_UNSAFE_PORT).
RESTRICTED_PORTS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)


class LoopbackServer:
    """Serves an ASGI application on `port`, or on any free port for 0."""

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
    def port(self) -> int:
        """Port at which it listens, 0 before it does."""
        return self._port

    @property
    def base_url(self) -> str:
        """Origin, without a slash at the end."""
        if not self._port:
            raise ConfigError("the site server has no address yet. Call `await server.start()` first.")
        return f"http://127.0.0.1:{self._port}"


class _QuietServer(uvicorn.Server):
    """Installs no signal handlers: the caller decides what Ctrl-C means."""

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


DRAFT_KEPT = "Your draft is kept. The form has not been sent."


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One attempt to submit a page or the whole form.

    Attributes:
        accepted: Whether the server accepted the whole form.
        fields: Every field of the site by HTML name, merged over the pages that were sent, in visible texts (`("on",)`
            for a ticked box, `()` for nothing).
        errors: Messages of the error page.
    """

    accepted: bool
    fields: Mapping[str, tuple[str, ...]]
    errors: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True)
class _Visit:
    """What the server knows of one rollout.

    Attributes:
        num_done: Pages in a row that were answered without error.
        injections: Difficulties that were added on behalf of the task.
        message: Message of the last answer if that was such a difficulty, else "".
    """

    site: Site
    answers: dict[str, tuple[str, ...]]
    num_done: int = 0
    pages_reached: int = 0
    is_accepted: bool = False
    injections: list[str] = field(default_factory=list)
    message: str = ""
    submissions: list[Submission] = field(default_factory=list)


class SiteServer(LoopbackServer):
    """Serves every site key to every rollout id, and any further `routes`."""

    def __init__(self, *, port: int = 0, routes: Sequence[Route] = ()) -> None:
        self._visits: dict[str, _Visit] = {}
        pages = [
            Route("/r/{rollout_id}/{site_key}/", self._first, methods=["GET", "POST"]),
            Route("/r/{rollout_id}/{site_key}/done", self._done),
            Route("/r/{rollout_id}/{site_key}/{number:int}", self._numbered, methods=["GET", "POST"]),
        ]
        super().__init__(Starlette(routes=[*pages, *routes]), port=port)

    def start_url(self, site_key: str, rollout_id: str) -> str:
        """Address of page 1 for one rollout; the id may hold letters, digits, `.`, `_`, `-` and `~`."""
        if not rollout_id or not all(
            letter.isascii() and (letter.isalnum() or letter in "._-~") for letter in rollout_id
        ):
            raise ConfigError(
                f"rollout id '{rollout_id}': expected letters, digits and . _ - ~, since it is part of an address."
            )
        return f"{self.base_url}/r/{rollout_id}/{site_key}/"

    def submissions(self, rollout_id: str) -> tuple[Submission, ...]:
        """All that was handed in under this id, in order; also pages of a wizard that were refused."""
        visit = self._visits.get(rollout_id)
        return tuple(visit.submissions) if visit else ()

    def pages_reached(self, rollout_id: str) -> int:
        """Number of the furthest page that was shown (from 1), 0 where none was."""
        visit = self._visits.get(rollout_id)
        return visit.pages_reached if visit else 0

    def injections(self, rollout_id: str) -> tuple[str, ...]:
        """Difficulties that the server added for this rollout on behalf of its task; the basic world adds none."""
        visit = self._visits.get(rollout_id)
        return tuple(visit.injections) if visit else ()

    def injected(self, rollout_id: str) -> str:
        """The message of the last answer where that was a difficulty of the task's own, else ""."""
        visit = self._visits.get(rollout_id)
        return visit.message if visit else ""

    def forget(self, rollout_id: str) -> None:
        """Drop everything about a rollout."""
        self._visits.pop(rollout_id, None)

    async def _first(self, request: Request) -> Response:
        return await self._page(request, 1)

    async def _numbered(self, request: Request) -> Response:
        return await self._page(request, request.path_params["number"])

    async def _page(self, request: Request, number: int) -> Response:
        visit = self._visit(request)
        if visit is None or not 1 <= number <= len(visit.site.pages):
            return PlainTextResponse("no such page", status_code=404)
        await self._wait(visit)
        if number > visit.num_done + 1:
            return RedirectResponse(_address(request, visit.num_done + 1), status_code=303)
        visit.message = ""
        if request.method == "GET":
            is_new, visit.pages_reached = not visit.pages_reached, max(visit.pages_reached, number)
            return _html(render_form_page(visit.site, number, visit.answers, (), request.url.path, is_new=is_new))
        async with request.form() as form:
            return self._receive(request, visit, number, form)

    async def _wait(self, visit: _Visit) -> None:
        """Delay the answer of a slow site."""
        if visit.site.behaviour.seconds:
            visit.injections.append("slow")
            await asyncio.sleep(visit.site.behaviour.seconds)

    def _refuses(self, visit: _Visit, number: int) -> bool:
        """Whether a busy site answers 503 to its last page once more."""
        is_last = number == len(visit.site.pages)
        return is_last and visit.injections.count("busy") < visit.site.behaviour.num_refusals

    def _receive(self, request: Request, visit: _Visit, number: int, form: FormData) -> Response:
        """Take the answers of one page: refuse them, go on to the next page, or accept the whole form."""
        site, page = visit.site, visit.site.pages[number - 1]
        visit.answers.update({item.name: _read_field(item, form) for item in page.fields})
        visit.answers.update({item.name: _read_extra(item, form) for item in page.extras})
        if visit.answers.get(DRAFT):
            html = render_form_page(site, number, visit.answers, (), request.url.path, notice=DRAFT_KEPT)
            return _html(html)
        if self._refuses(visit, number):
            visit.injections.append("busy")
            visit.message = site.behaviour.refusal
            html = render_form_page(site, number, visit.answers, (), request.url.path, notice=visit.message)
            return _html(html, status_code=503)
        errors = (*page_errors(site, number, visit.answers), *extra_errors(page, visit.answers))
        is_last = number == len(site.pages)
        if errors or is_last:
            submission = Submission(accepted=not errors, fields=_received(site, visit.answers), errors=errors)
            visit.submissions.append(submission)
        if errors:
            visit.num_done = number - 1
            html = render_form_page(site, number, visit.answers, errors, request.url.path)
            return _html(html, status_code=422)
        visit.num_done = number
        visit.is_accepted = visit.is_accepted or is_last
        target = _address(request, "done" if is_last else number + 1)
        return RedirectResponse(target, status_code=303)

    async def _done(self, request: Request) -> Response:
        visit = self._visit(request)
        if visit is None or not visit.is_accepted:
            return PlainTextResponse("no such page", status_code=404)
        return _html(render_done(visit.site))

    def _visit(self, request: Request) -> _Visit | None:
        """The state of a rollout, made at its first request; None for a site that does not exist or is not its own."""
        rollout_id, key = request.path_params["rollout_id"], request.path_params["site_key"]
        if rollout_id not in self._visits:
            try:
                site = make_site(key)
            except ConfigError:
                return None
            self._visits[rollout_id] = _Visit(site=site, answers=site_defaults(site))
        visit = self._visits[rollout_id]
        return visit if visit.site.key == key else None


def _html(text: str, status_code: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status_code=status_code, headers={"Cache-Control": "no-store"})


def _address(request: Request, page: int | str) -> str:
    rollout_id, key = request.path_params["rollout_id"], request.path_params["site_key"]
    return f"/r/{rollout_id}/{key}/" + ("" if page == 1 else str(page))


def _read_field(item: SiteField, form: FormData) -> tuple[str, ...]:
    """What was sent for a field, as visible texts; an HTML value that no option has stays as it is, to be refused."""
    if item.spec.kind == "file":
        return tuple(
            _read_file(value) for value in form.getlist(item.name) if not isinstance(value, str) and value.filename
        )
    sent = [str(value) for value in form.getlist(item.name) if str(value).strip()]
    if (item.spec.kind == "checkbox" or item.spec.kind == "button") and not item.options:
        return (TICKED,) if sent else ()
    if item.options:
        texts = {option.value: option.text for option in item.options}
        return tuple(texts.get(value, value) for value in sent)
    # Browsers send the line ends of a text area as CRLF.
    return tuple(value.replace("\r\n", "\n") for value in sent[:1])


def _read_extra(item: Extra, form: FormData) -> tuple[str, ...]:
    return tuple(str(value) for value in form.getlist(item.name)[:1] if value)


def _read_file(file: UploadFile) -> str:
    """The name of a file that arrived whole; another content under its name is another file."""
    name = file.filename or ""
    return name if file.file.read() == content_of(name) else f"{name} (damaged)"


def _received(site: Site, answers: Answers) -> dict[str, tuple[str, ...]]:
    """Every field of the site; one that these answers do not open counts as not sent."""
    fields = [item for item in site.fields if item.spec.kind != "button"]
    return {item.name: answers.get(item.name, ()) if is_visible(site, item, answers) else () for item in fields}
