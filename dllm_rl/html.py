"""HTML for notebooks: escaped text in plain tables that take the fonts and colours of the page they stand in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_CELL = 'style="text-align: left; vertical-align: top; white-space: pre-wrap"'


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table. What is not a text stands as `str` writes it; `Raw` stands as it is."""
    titles = "".join(f'<th scope="col" {_CELL}>{escape(title)}</th>' for title in head)
    lines = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"


def paragraph(*lines: str) -> str:
    """Write lines one below the other."""
    return f"<p>{'<br>'.join(map(escape, lines))}</p>"


class Raw(str):
    """HTML that is not escaped again."""

    __slots__ = ()


def shade(text: object, share: float, *, title: str) -> Raw:
    """Write a text on a colour between light (0) and dark (1), dark text throughout.

    Args:
        title: Shown under the pointer.
    """
    colour = f"hsl(265 60% {92 - 36 * min(1.0, max(0.0, share)):.0f}%)"
    style = f"background: {colour}; color: #1c2430; padding: 0 .3em"
    return Raw(f'<span style="{style}" title="{escape(title)}">{escape(str(text))}</span>')


def _cell(value: object) -> str:
    return f"<td {_CELL}>{value if isinstance(value, Raw) else escape(str(value))}</td>"
