"""A small benchmark of our own in the manner of FormFactory: a WSGI application, pages with forms, JSON answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import parse_qsl

HEAD = (
    '<!doctype html><html lang="en"><title>{title}</title>'
    '<link rel="stylesheet" href="https://cdn.example.com/kit.css">'
    '<script src="https://cdn.example.com/kit.js"></script>'
    "<h1>{title}</h1>"
)
CLUB = """<form method="post" action="/club/join">
<label for="n">Member Name</label><input id="n" name="memberName" required>
<label for="m">E-mail</label><input type="email" id="m" name="mail" required>
<label for="d">Date of Birth</label><input type="date" id="d" name="dob" required>
<label for="f">Yearly Fee ($)</label><input type="number" id="f" name="fee" step="0.01">
<label for="p">Plan</label><select id="p" name="plan"><option value="">Choose</option>
<option value="b">Basic plan</option><option value="g">Gold plan</option></select>
<fieldset><legend>Contact by</legend>
<input type="radio" id="c1" name="contact" value="1"><label for="c1">Phone</label>
<input type="radio" id="c2" name="contact" value="2"><label for="c2">Letter</label></fieldset>
<label for="a">Billing Address</label><input id="a" name="address">
<label for="w">About you</label><textarea id="w" name="about"></textarea>
<label for="pic">Photo</label><input type="file" id="pic" name="photo">
<button type="reset">Reset</button><button>Join</button></form>
<a href="https://example.com/rules">Rules of the club</a>"""
FAIR = """<form method="post" action="/fair" enctype="multipart/form-data"><input type="hidden" name="token" value="t">
<label for="s">Stand Title</label><input id="s" name="stand" required>
<fieldset><legend>Topics</legend>
<input type="checkbox" id="t1" name="topics[]" value="1"><label for="t1">Wood, paper</label>
<input type="checkbox" id="t2" name="topics[]" value="2"><label for="t2">Glass</label>
<input type="checkbox" id="t3" name="topics[]" value="3"><label for="t3">Clay</label></fieldset>
<input type="checkbox" id="n1" name="needs" value="power"><label for="n1">Power outlet</label>
<input type="checkbox" id="n2" name="needs" value="water"><label for="n2">Water tap</label>
<input type="checkbox" id="r" name="rules" value="yes" required><label for="r">I accept the rules</label>
<label for="pl">Floor Plan</label><input type="file" id="pl" name="floorPlan" required>
<label for="l">Languages</label><select id="l" name="languages" multiple><option>English</option><option>French</option>
<option>Welsh</option></select>
<input type="submit" value="Apply"></form>"""
# Answers by script, and only where the asset that it needs has been loaded.
NOTE = """<form id="note"><label for="x">Note Text</label><textarea id="x" name="text" required></textarea>
<label for="y">Priority</label><select id="y" name="priority"><option>Low</option><option>High</option></select>
<button>Save note</button></form>
<script>
document.getElementById("note").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!window.kitIsHere) return;
  const fields = Object.fromEntries(new FormData(event.target));
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("/note", { method: "POST", headers, body: JSON.stringify(fields) });
  alert((await answer.json()).message);
});
</script>"""
PAGES = {"/club/join": ("Join the club", CLUB), "/fair": ("Craft fair", FAIR), "/note": ("Quick note", NOTE)}
INDEX = (
    "".join(f'<a href="{path}">{title}</a> ' for path, (title, _) in PAGES.items())
    + '<a href="https://example.com">out</a>'
)
NAME_THAT_BREAKS_IT = "Robert'); --"
StartResponse = Callable[[str, list[tuple[str, str]]], object]


def application(environ: dict, start_response: StartResponse) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if environ["REQUEST_METHOD"] == "POST":
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        # What is received is written beside the code, as a benchmark may do; only the copy may be touched.
        Path(__file__).with_name("received.txt").write_bytes(body)
        first = dict(reversed(parse_qsl(body.decode("utf-8", errors="replace"))))
        if first.get("memberName") == NAME_THAT_BREAKS_IT:
            raise ValueError("no such name")
        return _say(start_response, "application/json", json.dumps({"message": "saved", "data": first}))
    if path == "/":
        return _say(start_response, "text/html", INDEX)
    if path in PAGES:
        title, body = PAGES[path]
        return _say(start_response, "text/html", HEAD.format(title=title) + body)
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"no such page"]


def _say(start_response: StartResponse, kind: str, text: str) -> list[bytes]:
    start_response("200 OK", [("Content-Type", f"{kind}; charset=utf-8")])
    return [text.encode()]
