"""Verdicts in words: the sentences at the top of a report, and the table for a terminal, Markdown and LaTeX."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from dllm_rl import html
from experiments.analysis.verdicts import UNJUDGED

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
    return "-" if _is_untold(cell) else interval_of(cell)


def interval_of(item: dict[str, Any]) -> str:
    """An effect in points with its interval, where it has one."""
    if item["low"] is None:
        return f"{item['effect']:+.1f}"
    return f"{item['effect']:+.1f} [{item['low']:+.1f}, {item['high']:+.1f}]"


def all_cells(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells of the report, then its controls; the positive control is one of the cells."""
    controls = [item["cell"] for item in report["controls"] if item["cell"] and item["role"] != "positive"]
    return [*report["cells"], *controls]


def verdict_table(report: dict[str, Any]) -> Table:
    """Build the table for the terminal (80 columns) from the data of report.json: a block a policy, controls last."""
    notes = [report["mixed_versions"]["sentence"]] if report["mixed_versions"] else []
    notes += [report["taken"]] if report["taken"] else []
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """The verdict table of a run, which a notebook shows as a table and `print` as Markdown."""

    report: dict[str, Any]

    def __str__(self) -> str:
        return markdown(self.report)

    def _repr_html_(self) -> str:
        return html.paragraph(self.report["headline"]) + html.table(_HEADER, _rows(self.report))


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


MIN_POSITIVE_SEEDS = 3
_MAX_LISTED = 4
_WORDS = {
    "improved": "improved",
    "regressed": "regressed",
    "equivalent": "equivalent to the warm start",
    "inconclusive": "inconclusive",
    "collapsed": "collapsed",
    "single_seed": "with a single seed",
    "failed": "failed",
}


def headline(
    cells: list[dict[str, Any]],
    controls: list[dict[str, Any]],
    contrasts: list[dict[str, Any]],
    *,
    num_seeds: int,
    is_complete: bool,
) -> str:
    """Say what came out. A broken control stands before anything else, then what is still owed, or averages.

    Args:
        num_seeds: That the grid should have.
        is_complete: Whether nothing is owed. Until then an average is one over whatever was run first.
    """
    sentences = [control["sentence"] for control in controls if control["state"] == "violated"]
    judged = [cell for cell in cells if cell["verdict"] != "owed"]
    averages = [item for item in contrasts if item["kind"] == "policy" and item["low"] is not None]
    if not is_complete:
        sentences.append(_progress(cells))
    elif averages:
        sentences.append(_averages(averages, num_seeds))
    if judged:
        sentences.append(_results(judged, is_all=len(judged) == len(cells)))
    return " ".join(sentences)


def seeds_of(average: dict[str, Any], num_seeds: int) -> str:
    """Seeds that an average is over, those that all cells have, beside those that the grid should have."""
    found = average["num_seeds"]
    return counted(found, "seed") if found == num_seeds else f"{found} of {counted(num_seeds, 'seed')}"


def counted(count: int, word: str) -> str:
    """A number with its noun."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def _averages(policies: list[dict[str, Any]], num_seeds: int) -> str:
    """What training did to each policy, averaged over its objectives, largest first."""
    found = sorted(policies, key=lambda item: -item["effect"])
    told = ", ".join(f"{item['name']} {interval_of(item)}" for item in found)
    count = found[0]["num_cells"]
    over = f"averaged over {count} objectives" if count > 1 else "by policy"
    return f"Change of success in points, {over}, {seeds_of(found[0], num_seeds)}: {told}."


def _progress(cells: list[dict[str, Any]]) -> str:
    """How far a grid is that has not ended."""
    owed = [cell for cell in cells if cell["verdict"] == "owed"]
    if not owed:
        return "This grid is not finished: every cell has its verdict, and a control or a seed is still owed."
    num_begun, num_judged = sum(has_begun(cell) for cell in owed), len(cells) - len(owed)
    counts = {"begun": num_begun, "not run yet": len(owed) - num_begun}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    size = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}"
    if not num_judged:
        return f"This grid is not finished: none of {size} has its verdict yet ({told})."
    has = "has its verdict" if num_judged == 1 else "have their verdict"
    return f"This grid is not finished: {num_judged} of {size} {has}, {len(owed)} still owed ({told})."


def _results(cells: list[dict[str, Any]], *, is_all: bool) -> str:
    """What came out of the cells that have a verdict.

    Args:
        is_all: Whether those are all of the grid.
    """
    judged = [cell for cell in cells if cell["effect"] is not None]
    verdicts = {cell["verdict"] for cell in cells}
    if judged and "single_seed" in verdicts and verdicts <= {"single_seed", "failed"}:
        return _single_seed(cells, judged)
    counts = Counter(cell["verdict"] for cell in cells)
    parts = []
    for verdict, word in _WORDS.items():
        if counts[verdict]:
            names = [_named(cell) for cell in cells if cell["verdict"] == verdict]
            is_listed = verdict in ("improved", "regressed", "collapsed", "failed") and len(names) <= _MAX_LISTED
            listed = f" ({'; '.join(names)})" if is_listed else ""
            parts.append(f"{counts[verdict]} {word}{listed}")
    provisional = (
        " Verdicts are provisional: under five seeds." if any(cell["is_provisional"] for cell in cells) else ""
    )
    which = f"{len(cells)} cell{'s' if len(cells) > 1 else ''}" if is_all else f"the {len(cells)}"
    if len(cells) == 1 and not is_all:
        return f"It is {parts[0].removeprefix('1 ')}.{provisional}"
    changed = counts["improved"], counts["regressed"]
    is_told = any(0 < count <= _MAX_LISTED for count in changed)
    told = " Changes are points of success." if is_told else "" if any(changed) else _largest(judged)
    return f"Of {which}: {', '.join(parts)}.{told}{provisional}"


def _largest(judged: list[dict[str, Any]]) -> str:
    """The largest change of a grid in which none passes for an effect."""
    measured = [cell for cell in judged if cell["low"] is not None]
    if not measured:
        return ""
    best = max(measured, key=lambda cell: abs(cell["effect"]))
    return f" The largest change is {best['id']} {_change(best)} points of success."


def _single_seed(cells: list[dict[str, Any]], judged: list[dict[str, Any]]) -> str:
    best = max(judged, key=lambda cell: abs(cell["effect"]))
    difference = f"The largest difference is {best['effect']:+.1f} points ({best['id']})."
    if best["effect"] == 0:
        difference = "No cell differs from its warm start."
    seen = [cell["detectable"] for cell in judged if cell["detectable"] is not None]
    power = f" The smallest effect that any cell could have seen is {min(seen):.0f} points." if seen else ""
    lost = sum(cell["verdict"] == "failed" for cell in cells)
    failed = f" {lost} of {len(cells)} cells failed." if lost else ""
    return f"One seed: intervals are over tasks alone, and no cell can be called improved. {difference}{power}{failed}"


def _named(cell: dict[str, Any]) -> str:
    """A cell's name; of one that changed also the change in points of success, with its 95 % interval."""
    if cell["verdict"] in ("improved", "regressed"):
        return f"{cell['id']} {_change(cell)}"
    return cell["id"]


def _change(cell: dict[str, Any]) -> str:
    return f"{cell['effect']:+.0f} [{cell['low']:.0f}, {cell['high']:.0f}]"


def positive_control(cell: dict[str, Any]) -> tuple[str, str]:
    """State and sentence of the positive control, judged only with three seeds or more."""
    name = f"Positive control ({cell['id']})"
    if cell["verdict"] == "improved":
        return "ok", f"{name} improved by {cell['effect']:+.1f} points: the trainer learns."
    if (cell["num_seeds"] or 0) < MIN_POSITIVE_SEEDS or cell["verdict"] in UNJUDGED:
        return "not judged", f"{name} is not judged: {cell['reason']}."
    return (
        "violated",
        f"{name} did not improve ({cell['reason']}): the trainer is broken, and no cell is to be believed.",
    )


def null_control(cell: dict[str, Any]) -> tuple[str, str]:
    """State and sentence of the null control: learning rate 0 must change nothing, not one rollout."""
    name = f"Null control ({cell['id']}, learning rate 0)"
    if cell["effect"] is None or cell["verdict"] in UNJUDGED:
        return "not judged", f"{name} is not judged: {cell['reason']}."
    if cell["verdict"] in ("improved", "regressed", "collapsed"):
        return "violated", f"{name} came out {cell['verdict']}: the comparison itself is broken."
    if cell["effect"] == 0 and cell["low"] == cell["high"]:
        return "ok", f"{name} reproduces its warm start exactly."
    return (
        "noted",
        f"{name} differs from its warm start ({cell['effect']:+.1f} points, {word_of(cell)}) and should reproduce it to"
        " the last rollout: something besides training decides results.",
    )


def negative_control(cell: dict[str, Any]) -> tuple[str, str]:
    """State and sentence of the negative control: unshared masks must trip the estimator-noise alarm in every seed."""
    name = f"Negative control ({cell['id']}, unshared masks)"
    runs = [seed for seed in cell["seeds"] if seed["diagnosis"]["num_steps"]]
    if not runs:
        return "not judged", f"{name} has not run."
    tripped = sum(
        any(alarm["detector"] == "off_policy_at_start" for alarm in run["diagnosis"]["alarms"]) for run in runs
    )
    seen = f"in {tripped} of {len(runs)} seeds"
    if tripped < len(runs):
        return "violated", f"{name} tripped the alarm {seen}: estimator noise would go unseen."
    states = [seed["state"] for seed in cell["seeds"] if seed["state"] not in ("done", "stopped")]
    counts = {"failed": states.count("failed"), "owed": len(states) - states.count("failed")}
    if states:
        left = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        return "not judged", f"{name} is not judged: tripped {seen}, {left}."
    return "ok", f"{name} trips the estimator-noise alarm, as it must."


CONTROLS = {"positive": positive_control, "null": null_control, "negative": negative_control}
ABSENT = {
    "positive": "Positive control: not part of this run.",
    "null": "Null control: not part of this run.",
    "negative": "Negative control: not part of this run.",
}


def _has_role(cell: dict[str, Any], role: str) -> bool:
    return cell["is_positive_control"] if role == "positive" else cell["role"] == role


def control_states(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """State of each kind of control: ok, violated, noted, not judged or absent."""
    states = []
    for role, judge in CONTROLS.items():
        found = [cell for cell in records if _has_role(cell, role)]
        for cell in found:
            state, sentence = judge(cell)
            states.append({"role": role, "state": state, "sentence": sentence, "cell": cell})
        if not found:
            states.append({"role": role, "state": "absent", "sentence": ABSENT[role], "cell": None})
    return states
