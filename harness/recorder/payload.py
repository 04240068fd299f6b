"""Fields of a request by the names they were sent under: a query, a form in any encoding, or JSON however deep.

JSON is flattened: `{"applicant": {"name": "Ann"}}` is the field `applicant.name`. What kind of body it is, is read from
the body where the header does not say, since a script that sends JSON as text says nothing.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

Fields = Mapping[str, tuple[str, ...]]
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


def folded(text: str) -> str:
    """Words only: `Date of Birth (required):` and `dateOfBirth` both lose what is not a word."""
    plain = re.sub(r"\((optional|required)\)", " ", text, flags=re.I)
    plain = re.sub(r"(?<=[a-z\d])(?=[A-Z])", " ", plain)
    return " ".join(re.findall(r"[^\W_]+", plain.casefold()))


async def read_fields(request: Request) -> Fields:
    """Every value of every name; files by their file name, nothing as nothing. What cannot be read has no fields."""
    try:
        return await _read(request)
    except (HTTPException, MultiPartException, ValueError):
        return {}


async def _read(request: Request) -> Fields:
    if request.method in ("GET", "HEAD"):
        return _collected(request.query_params.multi_items())
    if request.headers.get("content-type", "").startswith(_FORMS):
        # How much an application takes is its own business.
        async with request.form(max_files=math.inf, max_fields=math.inf, max_part_size=sys.maxsize) as form:
            items = form.multi_items()
            return _collected((name, item if isinstance(item, str) else item.filename or "") for name, item in items)
    return _of_text((await request.body()).decode("utf-8", errors="replace"))


def _of_text(body: str) -> Fields:
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        # A form that is sent as plain text has one field a line.
        lines = (line.partition("=") for line in body.splitlines())
        return _collected((name, value) for name, sign, value in lines if sign)
    return _collected(_leaves(record, ""))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
        if not value:
            yield path, ""
    else:
        yield path, ("on" if value else "") if isinstance(value, bool) else "" if value is None else str(value)


def _collected(items: Any) -> Fields:
    found: dict[str, list[str]] = {}
    for name, value in items:
        texts = found.setdefault(name, [])
        if value:
            texts.append(value.replace("\r\n", "\n"))
    return {name: tuple(texts) for name, texts in found.items() if name}
