"""Small pages as people have them, one for each way in which a page can differ from the built-in ones.

A WSGI application. `GET /<page>` serves a page; what is sent is answered with a redirect to `/thanks`, or as its page
does it in `ANSWERS`. Whoever asks for compressed answers gets them, as most servers do.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterable
from wsgiref.util import request_uri

Environ = dict
Answer = tuple[str, list[tuple[str, str]], str]
THANKS = ("303 See Other", [("Location", "/thanks")], "")
HTML = [("Content-Type", "text/html; charset=utf-8")]
JSON = [("Content-Type", "application/json")]
NAME = "<p><label>Your name <input name=owner></label></p>"
TOWN = "<p><label>Home town <input name=town></label></p>"
SEND = "<button>Send</button>"


def form(body: str, attributes: str = "method=post") -> str:
    return f"<form {attributes}>{NAME}{body}{SEND}</form>"


def by_script(method: str, body: str, headers: str = "{}") -> str:
    return (
        form(TOWN, "")
        + f"""<script>
        const f = document.querySelector("form");
        f.onsubmit = (event) => {{
          event.preventDefault();
          const [owner, town] = [...f.elements].map((element) => element.value);
          const record = {{ owner, town }};
          fetch("", {{ method: "{method}", headers: {headers}, body: {body} }});
        }};
      </script>"""
    )


LOCKED = "const [box, button] = document.querySelectorAll('input, button'); button.disabled = true;"
SUGGESTIONS = """<p><label>Airport <input name=airport role=combobox aria-controls=found></label></p>
    <ul id=found role=listbox hidden></ul><input type=hidden name=code><script>
    const box = document.querySelector("[name=airport]"), list = document.querySelector("#found");
    let at = -1;
    box.oninput = () => setTimeout(() => {
      list.innerHTML = "<li role=option>Ostend<li role=option>Oslo";
      list.hidden = false;
    }, DELAY);
    box.onkeydown = (event) => {
      if (list.hidden) return;
      if (event.key === "ArrowDown") at += 1;
      if (event.key !== "Enter" || at < 0) return;
      event.preventDefault();
      box.value = list.children[at].textContent;
      document.querySelector("[name=code]").value = at;
      list.hidden = true;
    };</script>"""


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
    # Forms that a script sends, in every method and encoding.
    "put": by_script("PUT", "new FormData(f)"),
    "patch": by_script("PATCH", "new URLSearchParams(new FormData(f))"),
    "json": by_script("POST", "JSON.stringify(record)", "{'content-type': 'application/json'}"),
    "json-as-text": by_script("POST", "JSON.stringify(record)"),
    "nested": by_script("POST", "JSON.stringify({person: {owner: record.owner}, place: [{town: record.town}]})"),
    "by-id": by_script("POST", "JSON.stringify({who: record.owner, home: record.town})").replace(
        "<input name=town>", "<input name=t1 id=home>"
    ),
    "by-label": by_script("POST", "JSON.stringify({yourName: record.owner, homeTown: record.town})"),
    "graphql": by_script("POST", "JSON.stringify({query: 'mutation', variables: {input: record}})"),
    # Forms that load a document otherwise than by POST in the usual encoding.
    "search": form(TOWN, "method=get action=/found"),
    "multipart": form(TOWN, "method=post enctype=multipart/form-data"),
    "plain-text": form(TOWN, "method=post enctype=text/plain"),
    # Pages that send other things before the form.
    "telemetry": form(
        TOWN
        + """<script>
        const [owner, town] = document.querySelectorAll("input");
        owner.onchange = () => {
          navigator.sendBeacon("/log", JSON.stringify({ event: "typed", at: 1 }));
          fetch("/is-free", { method: "POST", body: JSON.stringify({ owner: owner.value }) });
        };
        town.oninput = () => fetch("/towns?town=" + town.value);
      </script>"""
    ),
    "one-field-looked-up": f"<form>{NAME}</form><script>const box = document.querySelector('input');"
    "box.onchange = () => fetch('/is-free', {method: 'POST', body: JSON.stringify({owner: box.value})})</script>",
    # Forms whose script takes its time, or whose application does; and drafts of them.
    "answered-late": by_script("POST", "JSON.stringify(record)"),
    "sent-later": by_script("POST", "JSON.stringify(record)").replace("fetch(", "setTimeout(fetch, 500, "),
    "submitted-later": form(TOWN)
    + """<script>const f = document.querySelector("form");
    f.onsubmit = (event) => { event.preventDefault(); setTimeout(() => f.submit(), 500); };</script>""",
    "drafts": by_script("POST", "JSON.stringify(record)")
    + """<button type=button>Preview</button><script>
    document.querySelector("form").onchange = (event) => {
      const record = Object.fromEntries(new FormData(event.currentTarget));
      fetch("/draft", { method: "POST", body: JSON.stringify(record) });
    };</script>""",
    # Refusals with a good status.
    "shown-again": form(TOWN),
    "marked-again": form(TOWN),
    "sent-back": form(TOWN),
    "json-refusal": by_script("POST", "JSON.stringify(record)"),
    "always-a-hint": form(TOWN + "<p class=error hidden></p><p role=alert>Write as in your passport.</p>"),
    "thanked-above": form(TOWN),
    # Pages that listen to keys, and pages that take their time.
    "on-keyup": form("<script>" + LOCKED + "box.onkeyup = () => { button.disabled = !box.value; };</script>"),
    "own-keys": form(
        "<script>const box = document.querySelector('input');"
        "box.onkeypress = (event) => { if (!/[A-Za-z]/.test(event.key)) event.preventDefault(); };</script>"
    ),
    "checked-when-left": form("<script>" + LOCKED + "box.onblur = () => { button.disabled = !box.value; };</script>"),
    "checked-later": form(
        "<script>"
        + LOCKED
        + """let timer;
        box.oninput = () => {
          button.disabled = true;
          clearTimeout(timer);
          timer = setTimeout(() => { button.disabled = !box.value; }, 300);
        };</script>"""
    ),
    "shown-later": form(
        TOWN
        + """<script>
        const part = document.querySelectorAll("p")[1];
        document.querySelector("input").oninput = () => {
          part.hidden = true;
          setTimeout(() => { part.hidden = false; }, 250);
        };
      </script>"""
    ),
    "two-lists": form(
        """<p><label>Country <select name=country><option value="">Choose<option value=b>Belgium
        <option value=f>France</select></label></p>
        <p><label>City <select name=city><option value="">First the country</select></label></p>
        <script>
        const [country, city] = document.querySelectorAll("select");
        country.onchange = async () => {
          const names = await (await fetch(`/cities?of=${country.value}`)).json();
          city.replaceChildren(...names.map((name) => new Option(name, name.slice(0, 2))));
        };
      </script>"""
    ),
    "filled-for-you": form(
        TOWN
        + """<script>const [owner, town] = document.querySelectorAll("input");
        owner.onchange = () => {
          const request = new XMLHttpRequest();
          request.onload = () => { town.value = JSON.parse(request.response)[0]; };
          request.open("GET", "/cities?of=f");
          request.send();
        };</script>"""
    ),
    "fading": form(
        "<div style='position:fixed;inset:0;background:white;transition:opacity .3s' id=veil></div><script>"
        "setTimeout(() => { veil.style.opacity = 0; }, 50);"
        "veil.ontransitionend = () => veil.remove();</script>"
    ),
    "suggestions": form(SUGGESTIONS.replace("DELAY", "0")),
    "late-suggestions": form(SUGGESTIONS.replace("DELAY", "250")),
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


def _is_wrong(body: str) -> bool:
    return "Ypres" not in body


def _shown_again(environ: Environ, body: str) -> Answer:
    alert = "<ul class=errorlist><li>Home town: there is no such town</li></ul>"
    return _page("shown-again", alert) if _is_wrong(body) else _page("thanks")


def _marked_again(environ: Environ, body: str) -> Answer:
    page = _page("marked-again")
    return (*page[:2], page[2].replace("name=town", "name=town aria-invalid=true")) if _is_wrong(body) else THANKS


SENT_BACK: list[bool] = []


def _sent_back(environ: Environ, body: str) -> Answer:
    if environ["REQUEST_METHOD"] == "GET":
        return _page("sent-back", "<p class='alert alert-danger'>No such town</p>" if SENT_BACK.pop() else "")
    SENT_BACK.append(_is_wrong(body))
    return ("303 See Other", [("Location", "/sent-back?again" if SENT_BACK[-1] else "/thanks")], "")


def _json_refusal(environ: Environ, body: str) -> Answer:
    return ("200 OK", JSON, '{"status": "failed", "why": "no such town"}' if _is_wrong(body) else '{"status": "ok"}')


def _thanked_above(environ: Environ, body: str) -> Answer:
    return _page("thanked-above", "<div class='alert alert-success' role=alert>Thank you, saved.</div>")


def _hint(environ: Environ, body: str) -> Answer:
    return _page("always-a-hint")


def _late(environ: Environ, body: str) -> Answer:
    time.sleep(1.5)
    return THANKS


ANSWERS: dict[str, Callable[[Environ, str], Answer]] = {
    "answered-late": _late,
    "no-content": _no_content,
    "file-answer": _file,
    "origin": _checks_origin,
    "shown-again": _shown_again,
    "marked-again": _marked_again,
    "sent-back": _sent_back,
    "json-refusal": _json_refusal,
    "always-a-hint": _hint,
    "thanked-above": _thanked_above,
}


def _page(page: str, above: str = "") -> Answer:
    body = PAGES.get(page, "")
    return ("200 OK", HTML, f"<!doctype html><html lang=en><title>{page}</title><h1>{page}</h1>{above}{body}")


def application(environ: Environ, start_response: Callable[..., object]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode("utf-8", errors="replace")
    status, headers, content = _answer(environ, environ["PATH_INFO"].strip("/"), body)
    if "gzip" not in environ.get("HTTP_ACCEPT_ENCODING", ""):
        start_response(status, list(headers))
        return [content.encode()]
    start_response(status, [*headers, ("Content-Encoding", "gzip")])
    return [gzip.compress(content.encode())]


def _answer(environ: Environ, page: str, body: str) -> Answer:
    if environ["REQUEST_METHOD"] == "GET" and page in PAGES and not environ["QUERY_STRING"]:
        return _page(page)
    if page == "cities":
        time.sleep(0.2)
        return ("200 OK", JSON, '["Lille", "Lyon"]' if environ["QUERY_STRING"] == "of=f" else '["Ghent", "Ypres"]')
    if page in ANSWERS:
        return ANSWERS[page](environ, body)
    return THANKS if page in PAGES else ("200 OK", HTML, "<h1>Thanks</h1>")
