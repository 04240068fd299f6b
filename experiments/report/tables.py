"""The verdict table for a terminal, and the same table in Markdown and LaTeX for papers."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

GLYPHS = {
    "improved": "▲",
    "regressed": "▼",
    "equivalent": "=",
    "inconclusive": "?",
    "collapsed": "✕",
    "single_seed": "1",
    "failed": "!",
    "owed": "…",
}
_STYLES = {
    "improved": "green",
    "regressed": "red",
    "equivalent": "blue",
    "collapsed": "magenta",
    "failed": "bold red",
    "owed": "dim",
}


def label_of(cell: dict[str, Any]) -> str:
    """The verdict in words, marked where it is provisional."""
    text = word_of(cell)
    return f"{text} (provisional)" if cell["is_provisional"] else text


def word_of(cell: dict[str, Any]) -> str:
    """The verdict in a word or two; of a cell that is owed, how far it is."""
    if cell["verdict"] != "owed":
        return cell["verdict"].replace("_", " ")
    if not has_begun(cell):
        return "not run yet"
    num_done = len(cell["seeds"]) - len(cell["missing_seeds"])
    return f"{num_done} of {len(cell['seeds'])} seeds" if cell["missing_seeds"] else "no warm start yet"


def has_begun(cell: dict[str, Any]) -> bool:
    """Whether there is anything to show of a cell: a result, a failure, or a step of training."""
    states = [seed["state"] != "owed" or bool(seed["diagnosis"]["num_steps"]) for seed in cell["seeds"]]
    return any(states) or cell["effect"] is not None


def percent(share: float | None) -> str:
    """A share as percent, without the sign."""
    return "-" if share is None else f"{100 * share:.1f}"


def _is_untold(cell: dict[str, Any]) -> bool:
    return cell["effect"] is None or cell["verdict"] == "owed"


def effect_of(cell: dict[str, Any]) -> str:
    """The effect in points with its interval; none yet of a cell that is owed, whose seeds so far decide nothing."""
    if _is_untold(cell):
        return "-"
    if cell["low"] is None:
        return f"{cell['effect']:+.1f}"
    return f"{cell['effect']:+.1f} [{cell['low']:+.1f}, {cell['high']:+.1f}]"


def all_cells(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells of the report, then its controls; the positive control is among the cells already."""
    controls = [item["cell"] for item in report["controls"] if item["cell"] and item["role"] != "positive"]
    return [*report["cells"], *controls]


def verdict_table(report: dict[str, Any]) -> Table:
    """Build the table for the terminal (80 columns) from the data of report.json: a block a policy, controls last."""
    notes = [report["mixed_versions"]["sentence"]] if report["mixed_versions"] else []
    notes += ["Provisional: under five seeds."] if any(cell["is_provisional"] for cell in report["cells"]) else []
    table = Table(
        title=report["headline"],
        caption="\n".join(notes) or None,
        title_justify="left",
        caption_justify="left",
        title_style="",
    )
    table.box, table.show_edge, table.pad_edge = SIMPLE_HEAD, False, False
    table.add_column("cell", no_wrap=True)
    for name in ("success %", "change", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    block = None
    for cell in all_cells(report):
        name = cell["policy"] if cell["role"] == "cell" else f"{cell['role']} control"
        if name != block:
            table.add_row(name, style="bold")
            block = name
        table.add_row(
            f"  {cell['objective']}" if cell["role"] == "cell" else f"  {cell['policy']} {cell['objective']}",
            f"{percent(cell['before']['success'])} → {percent(cell['after']['success'])}",
            "-" if _is_untold(cell) else f"{cell['effect']:+.1f}",
            "-" if _is_untold(cell) or cell["low"] is None else f"{cell['low']:+.1f} to {cell['high']:+.1f}",
            f"{GLYPHS[cell['verdict']]} {word_of(cell)}",
            style=_STYLES.get(cell["verdict"]),
        )
    return table


def _rows(report: dict[str, Any]) -> list[list[str]]:
    return [
        [
            cell["policy"],
            cell["objective"] if cell["role"] == "cell" else f"{cell['objective']} ({cell['role']} control)",
            percent(cell["before"]["success"]),
            percent(cell["after"]["success"]),
            effect_of(cell),
            "-" if cell["p_adjusted"] is None else f"{cell['p_adjusted']:.3g}",
            label_of(cell),
        ]
        for cell in all_cells(report)
    ]


_HEADER = ["Policy", "Objective", "Before %", "After %", "Change, points [95 %]", "Adjusted p", "Verdict"]


def markdown(report: dict[str, Any]) -> str:
    """The verdict table in Markdown, with what is needed to read it."""
    lines = [
        f"**{report['preset']}** (digest `{report['digest']}`): {report['headline']}",
        "",
        "| " + " | ".join(_HEADER) + " |",
        "|---|---|---:|---:|---:|---:|---|",
        *("| " + " | ".join(row) + " |" for row in _rows(report)),
        "",
    ]
    return "\n".join(lines)


def _latex(text: str) -> str:
    for plain, escaped in (
        ("\\", r"\textbackslash "),
        ("_", r"\_"),
        ("%", r"\%"),
        ("&", r"\&"),
        ("#", r"\#"),
    ):
        text = text.replace(plain, escaped)
    return text


def latex(report: dict[str, Any]) -> str:
    """The verdict table in LaTeX (booktabs)."""
    body = [" & ".join(_latex(field) for field in row) + r" \\" for row in _rows(report)]
    return "\n".join(
        [
            r"\begin{tabular}{llrrrrl}",
            r"\toprule",
            " & ".join(_latex(field) for field in _HEADER) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
