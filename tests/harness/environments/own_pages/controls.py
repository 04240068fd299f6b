"""Forms with every kind of control that people meet, one page each, and what their tasks want."""

from __future__ import annotations

from typing import Any

NAME = "<p><label>Your name <input name=owner></label></p>"
DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def form(body: str, send: str = "<button>Send</button>", attributes: str = "method=post") -> str:
    return f"<form {attributes}>{NAME}{body}{send}</form>"


HIDDEN_BOXES = """<style>
.shrunk input { position: absolute; opacity: 0; width: 0; height: 0 }
.under input { position: absolute; opacity: 0; z-index: -1 }
.gone input { display: none }
.clipped input { position: absolute; width: 1px; height: 1px; overflow: hidden; clip: rect(0 0 0 0) }
.knob { display: inline-block; width: 20px; height: 12px; background: grey }
</style>
<p class=shrunk><label>Newsletter <input type=checkbox name=news><span class=knob></span></label></p>
<p class=under><input type=checkbox name=terms id=t><label for=t>Terms</label></p>
<p class=gone><input type=checkbox name=calls id=c><label for=c>Calls</label></p>
<p class=clipped><label><input type=checkbox name=fax> Fax</label></p>
<fieldset class=gone><legend>Seat</legend><input type=radio name=seat value=1 id=s1><label for=s1>Aisle</label>
<input type=radio name=seat value=2 id=s2><label for=s2>Window</label></fieldset>"""
WIZARD = """<form method=post id=steps>
<div class=step>{name}</div>
<div class=step hidden><p><label>Home town <input name=town></label></p></div>
<div class=step hidden><p><label>Fare <select name=fare><option value="">Choose<option value=f>Full</select></label></p>
</div>
<button type=button id=on>Next</button></form><script>
let at = 0;
const steps = [...document.querySelectorAll(".step")];
document.querySelector("#on").onclick = (event) => {
  if (at === 2) return document.querySelector("#steps").requestSubmit();
  steps[at].hidden = true;
  steps[at += 1].hidden = false;
  if (at === 2) event.target.textContent = "Order";
};</script>"""
SHADOW = """<town-field></town-field><input type=hidden name=town><script>
customElements.define("town-field", class extends HTMLElement {
  connectedCallback() {
    const root = this.attachShadow({ mode: "open" });
    root.innerHTML = "<label>Home town <input></label>";
    const sent = document.querySelector("[name=town]");
    root.querySelector("input").oninput = (event) => { sent.value = event.target.value; };
  }
});</script>"""
ROLES = """<p id=fare-label>Fare</p>
<div role=combobox tabindex=0 aria-labelledby=fare-label aria-controls=fares aria-expanded=false>Choose</div>
<ul role=listbox id=fares hidden><li role=option>Half<li role=option>Full</ul><input type=hidden name=fare>
<div role=checkbox tabindex=0 aria-checked=false id=terms>Terms read</div><input type=hidden name=terms>
<div role=radiogroup aria-label=Seat><span role=radio tabindex=0 aria-checked=false>Aisle</span>
<span role=radio tabindex=0 aria-checked=false>Window</span></div><input type=hidden name=place>
<script>
const [box, list, tick] = ["[role=combobox]", "#fares", "#terms"].map((name) => document.querySelector(name));
const field = (name) => document.querySelector(`[name=${name}]`);
box.onclick = () => { list.hidden = !list.hidden; };
for (const option of list.children) {
  option.onclick = () => { field("fare").value = box.textContent = option.textContent; list.hidden = true; };
}
tick.onclick = () => {
  const isOn = tick.getAttribute("aria-checked") !== "true";
  tick.setAttribute("aria-checked", isOn);
  field("terms").value = isOn ? "1" : "";
};
const seats = [...document.querySelectorAll("[role=radio]")];
for (const seat of seats) seat.onclick = () => {
  for (const other of seats) other.setAttribute("aria-checked", other === seat);
  field("place").value = seat.textContent;
};</script>"""
EDITOR = """<div contenteditable=true role=textbox aria-label=Message style="min-height:30px;border:1px solid"></div>
<input type=hidden name=message><script>
const editor = document.querySelector("[contenteditable]");
editor.oninput = () => { document.querySelector("[name=message]").value = editor.innerText.trim(); };</script>"""
CALENDAR = """<p><label>Arrival <input name=arrival readonly></label></p><div id=month hidden></div><script>
const [day, month] = [document.querySelector("[name=arrival]"), document.querySelector("#month")];
day.onclick = () => {
  month.hidden = false;
  month.replaceChildren(...Array.from({ length: 28 }, (_, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = at + 1;
    button.onclick = () => { day.value = `2026-02-${String(at + 1).padStart(2, "0")}`; month.hidden = true; };
    return button;
  }));
};</script>"""

# A code over several boxes without names: a script joins them and goes on; and one that takes the keys for itself.
CODE = """<p>Code</p><div class=code>{boxes}</div><input type=hidden name=code><script>
const boxes = [...document.querySelectorAll(".code input")];
boxes.forEach((box, at) => {
  box.oninput = () => {
    document.querySelector("[name=code]").value = boxes.map((item) => item.value).join("");
    if (box.value) boxes[at + 1]?.focus();
  };
});</script>""".replace("{boxes}", "<input maxlength=1 size=1> " * 4)
CODE_BY_KEYS = """<fieldset><legend>Code from your letter</legend>{boxes}</fieldset><input type=hidden name=pin><script>
const boxes = [...document.querySelectorAll("fieldset input")];
boxes.forEach((box, at) => {
  box.onkeydown = (event) => {
    if (!/^[0-9]$/.test(event.key)) return;
    event.preventDefault();
    box.value = event.key;
    document.querySelector("[name=pin]").value = boxes.map((item) => item.value).join("");
    setTimeout(() => { if (boxes[at + 1]) boxes[at + 1].disabled = false; boxes[at + 1]?.focus(); }, 50);
  };
});</script>""".replace(
    "{boxes}",
    "<input type=tel maxlength=1 aria-label='Digit 1 of 6'>"
    + "".join(
        f"{'-' * (at == 4)}<input type=tel maxlength=1 aria-label='Digit {at} of 6' disabled>" for at in range(2, 7)
    ),
)

MASK = """<p><label>Phone <input name=phone></label></p><script>
document.querySelector("[name=phone]").oninput = ({ target }) => {
  const digits = target.value.replace(/\\D/g, "").slice(0, 10);
  const [area, exchange, line] = [digits.slice(0, 3), digits.slice(3, 6), digits.slice(6)];
  if (line) target.value = `(${area}) ${exchange}-${line}`;
};</script>"""

# By page: its HTML, and what its task wants beside the name.
CONTROLS: dict[str, tuple[str, dict[str, Any]]] = {
    "datetime-local": (
        form("<p><label>Pick-up <input type=datetime-local name=at></label></p>"),
        {"Pick-up": "2026-02-03T10:30"},
    ),
    "week": (form("<p><label>Week <input type=week name=week></label></p>"), {"Week": "2026-W05"}),
    "month": (form("<p><label>Month <input type=month name=month></label></p>"), {"Month": "2026-05"}),
    "time": (form("<p><label>Start <input type=time name=start></label></p>"), {"Start": "5:30 PM"}),
    "color": (form("<p><label>Colour <input type=color name=colour></label></p>"), {"Colour": "#DC143C"}),
    "range": (form("<p><label>Guests <input type=range name=guests min=0 max=9 value=1></label></p>"), {"Guests": 7}),
    "image-button": (form("", f"<input type=image alt=Send src='{DOT}' width=80 height=30>"), {}),
    "hidden-boxes": (
        form(HIDDEN_BOXES),
        {"Newsletter": True, "Terms": True, "Calls": True, "Fax": True, "Seat": "Window"},
    ),
    "hidden-file": (
        form(
            "<p><label for=cv style='border:1px solid'>Your paper</label>"
            "<input type=file name=paper id=cv hidden required></p>",
            attributes="method=post enctype=multipart/form-data",
        ),
        {"Your paper": "plan.txt"},
    ),
    "one-name": (
        form("<p><input name='tel[]' aria-label=area> <input name='tel[]' aria-label=line></p>"),
        {"tel[]": ["020", "7946"]},
    ),
    "code": (form(CODE), {"Code": "0471"}),
    "code-by-keys": (form(CODE_BY_KEYS), {"Code from your letter": "304715"}),
    "code-of-one-name": (
        form(
            f"<p><label for=c>Code</label> <input id=c name='c[]' maxlength=1>{3 * '<input name=c[] maxlength=1>'}</p>"
        ),
        {"Code": 4711},
    ),
    "marks-of-one-name": (
        form(
            "".join(
                f"<p><label>{name} <input name='mark[]' maxlength=1></label></p>" for name in ("Taste", "Smell", "Look")
            )
        ),
        {"mark[]": ["3", "1", "5"]},
    ),
    "alike-options": (
        form(
            "<p><label>City <select name=city><option value=''>Choose"
            "<optgroup label=Italy><option value=1>Rome<option value=2>Milan</optgroup>"
            "<optgroup label=Georgia><option value=3>Rome</optgroup></select></label></p>"
        ),
        {"City": "Rome (Georgia)"},
    ),
    "no-break-spaces": (
        form(
            "<p><label>Region <select name=region><option value=''>Choose<option value=n>North&nbsp;Shore"
            "<option value=s>South&nbsp;Shore</select></label></p>"
        ),
        {"Region": "North Shore"},
    ),
    "masked": (form(MASK), {"Phone": "(555) 010-4477"}),
    "asks-first": (form("", attributes="method=post onsubmit=\"return confirm('Send it?')\""), {}),
    "roles": (form(ROLES), {"Fare": "Full", "Terms read": True, "Seat": "Window"}),
    "editor": (form(EDITOR), {"Message": "Hello there"}),
    "shadow": (form(SHADOW), {"Home town": "Ypres"}),
    "frame": ("<p>The form:</p><iframe src=/framed width=600 height=300></iframe>", {}),
    "calendar": (form(CALENDAR), {"Arrival": "2026-02-14"}),
    "details": (
        form("<details><summary>More</summary><p><label>Nickname <input name=nick></label></p></details>"),
        {"Nickname": "Nan"},
    ),
    "wizard": (WIZARD.replace("{name}", NAME), {"Home town": "Ypres", "Fare": "Full"}),
    "revealed": (
        form(
            "<p><label>Heard from <select name=how><option value=''>Choose<option value=f>Friends<option value=o>Other"
            "</select></label></p><p id=which hidden><label>Which other <input name=other></label></p>"
            "<script>document.querySelector('[name=how]').onchange = (event) => "
            "{ document.querySelector('#which').hidden = event.target.value !== 'o'; }</script>"
        ),
        {"Heard from": "Other", "Which other": "a poster"},
    ),
    "table-cells": (
        "<form method=post><table><tr><td>Applicant</td><td><input name=f1></td></tr>"
        "<tr><td>Home town:</td><td><input name=f2></td></tr></table><button>Send</button></form>",
        {"Applicant": "Ann", "Home town": "Ypres"},
    ),
    "bare-label-group": (
        form(
            "<label>Finish *</label><div><input type=radio name=finish value=m id=m><label for=m>Matt</label>"
            "<input type=radio name=finish value=g id=g><label for=g>Gloss</label></div>"
        ),
        {"Finish": "Gloss"},
    ),
    "untied-options": (
        form(
            "<fieldset><legend>Size</legend><input type=radio name=size value=s> Small"
            "<input type=radio name=size value=l> Large</fieldset>"
        ),
        {"Size": "Large"},
    ),
    "help-after-send": (form("", "<button>Send</button><button type=button>Help</button>"), {}),
    "second-form": (form("") + "<form action=/find><input name=q aria-label=Find><button>Find</button></form>", {}),
    "built-late": (
        "<form method=post><div id=here></div></form><script>"
        "setTimeout(async () => { const page = await fetch('/built');"
        "document.querySelector('#here').innerHTML = await page.text(); }, 200)</script>",
        {"Home town": "Ypres"},
    ),
    "two-documents": (form("<input type=hidden name=step value=1>", "<button>Go on</button>"), {"Home town": "Ypres"}),
}
# Parts that other pages bring in.
PARTS = {
    "framed": form(""),
    "built": f"{NAME}<p><label>Home town <input name=town></label></p><button>Send</button>",
    "second": "<form method=post action=/two-documents>"
    "<p><label>Home town <input name=town required></label></p><button>Send</button></form>",
}


def application(environ: dict, start_response: Any) -> list[bytes]:
    """Serve the pages. The form of two documents asks for the second part before it takes the first."""
    page, headers = environ["PATH_INFO"].strip("/"), [("Content-Type", "text/html; charset=utf-8")]
    sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    if environ["REQUEST_METHOD"] == "POST" and "step=1" not in sent:
        start_response("303 See Other", [("Location", "/thanks")])
        return [b""]
    page = "second" if sent else page
    body = CONTROLS[page][0] if page in CONTROLS else PARTS.get(page, "<p>Thank you.</p>")
    start_response("200 OK", headers)
    whole = f"<!doctype html><html lang=en><title>{page}</title><h1>{page}</h1>{body}" if page != "built" else body
    return [whole.encode()]
