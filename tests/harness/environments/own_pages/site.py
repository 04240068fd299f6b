"""Small pages as people have them, one for each way in which a page can differ from the built-in ones.

A WSGI application. `GET /<page>` serves a page; what is sent is answered with a redirect to `/thanks`, or as its page
does it in `ANSWERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from wsgiref.util import request_uri

Environ = dict
Answer = tuple[str, list[tuple[str, str]], str]
THANKS = ("303 See Other", [("Location", "/thanks")], "")
HTML = [("Content-Type", "text/html; charset=utf-8")]
JSON = [("Content-Type", "application/json")]
NAME = "<p><label>Your name <input name=owner></label></p>"
SEND = "<button>Send</button>"


def form(body: str, attributes: str = "method=post") -> str:
    return f"<form {attributes}>{NAME}{body}{SEND}</form>"


PAGES: dict[str, str] = {
    # Forms whose answer comes elsewhere than in the window of the form.
    "new-window": form("", "method=post target=_blank"),
    "named-window": form("", "method=post target=receipt"),
    "base-target": f"<base target=_blank>{form('')}",
    "button-target": f"<form method=post>{NAME}<button formtarget=_blank>Send</button></form>",
    "script-target": form("", "method=post onsubmit=\"this.target = '_blank'\""),
    "script-submit": f"<form method=post target=_blank>{NAME}</form>"
    "<button onclick='document.forms[0].submit()'>Send</button>",
    "hidden-frame": f"{form('', 'method=post target=sink')}<iframe name=sink hidden></iframe>",
    "no-content": form(""),
    "file-answer": form(""),
    # Answers that are nowhere.
    "no-address": form("", "method=post action='javascript:void(0)'"),
    "mail": form("", "method=post action='mailto:a@example.com'"),
    # An application that checks where a form comes from.
    "origin": form(""),
}


def _no_content(environ: Environ, body: str) -> Answer:
    return ("204 No Content", [], "")


def _file(environ: Environ, body: str) -> Answer:
    return ("200 OK", [("Content-Type", "text/csv"), ("Content-Disposition", "attachment; filename=r.csv")], "a,b")


def _checks_origin(environ: Environ, body: str) -> Answer:
    own = request_uri(environ, include_query=False).removesuffix(environ["PATH_INFO"])
    return THANKS if environ.get("HTTP_ORIGIN") == own else ("403 Forbidden", HTML, "<h1>Another site sent this</h1>")


ANSWERS: dict[str, Callable[[Environ, str], Answer]] = {
    "no-content": _no_content,
    "file-answer": _file,
    "origin": _checks_origin,
}


def application(environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode("utf-8", errors="replace")
    status, headers, content = _answer(environ, environ["PATH_INFO"].strip("/"), body)
    start_response(status, list(headers))
    return [content.encode()]


def _answer(environ: Environ, page: str, body: str) -> Answer:
    if environ["REQUEST_METHOD"] == "GET" and page in PAGES:
        return ("200 OK", HTML, f"<!doctype html><html lang=en><title>{page}</title><h1>{page}</h1>{PAGES[page]}")
    if page in ANSWERS:
        return ANSWERS[page](environ, body)
    return THANKS if page in PAGES else ("200 OK", HTML, "<h1>Thanks</h1>")
