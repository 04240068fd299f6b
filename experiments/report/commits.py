"""Commit order of a cell at the start, the middle and the end of training: position against denoising step."""

from __future__ import annotations

from html import escape
from typing import Any

from markupsafe import Markup

from experiments.report.load import CellRun

_LEVELS = 5


def commits_of(cell: CellRun) -> list[dict[str, Any]]:
    """One record a kept training step of the first seed that has any: the share of each position's tokens by step.

    Empty for the autoregressive family, whose order is fixed, and for runs that have kept none.
    """
    kept = next((run.commits for run in cell.seeds if run.commits), [])
    if all(_is_left_to_right(row["counts"]) for row in kept):
        return []
    return [
        {
            "step": row["step"],
            "num_positions": row["num_positions"],
            "num_steps": row["num_steps"],
            "shares": [_shares(counts) for counts in row["counts"]],
        }
        for row in kept
    ]


def _is_left_to_right(counts: list[list[int]]) -> bool:
    """Whether every position has a step of its own."""
    return len(counts) == len(counts[0] if counts else []) and all(
        not count or position == step for position, row in enumerate(counts) for step, count in enumerate(row)
    )


def _shares(counts: list[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]


def heat_map(record: dict[str, Any], *, label: str) -> Markup:
    """Positions down, denoising steps across; the darker, the larger the share of the position's tokens.

    One path a shade instead of one box a cell, which keeps the page small.
    """
    shares = record["shares"]
    rows, columns = len(shares), len(shares[0]) if shares else 1
    highest = max((share for row in shares for share in row), default=0.0) or 1.0
    boxes: dict[int, list[str]] = {}
    for position, row in enumerate(shares):
        for step, share in enumerate(row):
            level = round(_LEVELS * share / highest)
            if level:
                boxes.setdefault(level, []).append(f"M{step} {position}h1v1h-1z")
    paths = "".join(f'<path class="heat{level}" d="{"".join(parts)}"/>' for level, parts in sorted(boxes.items()))
    return Markup(
        f'<svg class="heat" role="img" aria-label="{escape(label)}" viewBox="0 0 {columns} {rows}" '
        f'preserveAspectRatio="none"><title>{escape(label)}</title>{paths}</svg>'
    )


def commit_blocks(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Heat maps of each cell that has any."""
    blocks = []
    for cell in cells:
        maps = [
            (
                record["step"],
                heat_map(record, label=f"Commit order of {cell['id']} at training step {record['step']}"),
                record["num_steps"],
            )
            for record in cell["commit_order"]
            if record["shares"]
        ]
        if maps:
            blocks.append({"cell": cell, "maps": maps})
    return blocks
