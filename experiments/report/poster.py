"""One picture of a run for slides: effects of all cells with their intervals, a panel a policy, its average on top."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm_rl.errors import ConfigError
from dllm_rl.files import replace_file
from experiments.report.tables import GLYPHS, counted, interval_of, seeds_of, word_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
# A slide of 16 to 9, which at 120 dots an inch has 1920 x 1080 pixels.
_INCHES, _DOTS_PER_INCH = (16.0, 9.0), 120
_ACROSS = 4
# More rows than these have no room for the words of their verdicts, whose colours then speak alone.
_WORDED_ROWS = 12
_INK, _SOFT, _LINE, _BAND = "#1b1f24", "#5b6470", "#dfe2e6", "#f0f1f3"
# Those of the page (style.css).
_COLOURS = {
    "improved": "#0b7a4b",
    "regressed": "#b3261e",
    "equivalent": "#3a5a8c",
    "inconclusive": "#5b6470",
    "collapsed": "#8e24aa",
    "single_seed": "#7a5a00",
    "failed": "#9a2d00",
    "owed": "#5b6470",
}


def write_poster(report: dict[str, Any], path: Path) -> None:
    """Draw a report's data (as `build_report` returns it) into a file; the ending of its name decides the format.

    Raises ConfigError for another ending.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"--out {path}: expected a name that ends in {', '.join(FORMATS)}.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, facecolor="white")
    policies = list(dict.fromkeys(cell["policy"] for cell in report["cells"]))
    objectives = list(dict.fromkeys(cell["objective"] for cell in report["cells"]))
    num_rows = -(-len(policies) // _ACROSS)
    panels = list(figure.subplots(num_rows, min(len(policies), _ACROSS), sharex=True, sharey=True, squeeze=False).flat)
    for panel, policy in zip(panels, policies, strict=False):
        _draw_policy(panel, policy, objectives, report, is_small=num_rows * len(objectives) > _WORDED_ROWS)
    for panel in panels[len(policies) :]:
        panel.set_axis_off()
    _write_words(figure, report)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=_DOTS_PER_INCH)


def _draw_policy(axes: Axes, policy: str, objectives: list[str], report: dict[str, Any], *, is_small: bool) -> None:
    """One row an objective, the first on top.

    Args:
        is_small: There is no room for words.
    """
    margin = report["evaluation"]["margin"]
    axes.axvspan(-margin, margin, color=_BAND)
    axes.axvline(0, color=_SOFT, linewidth=1)
    size = 8 if is_small else 15
    for cell in report["cells"]:
        if cell["policy"] == policy:
            _draw_cell(axes, objectives.index(cell["objective"]), cell, size, has_word=not is_small)
    axes.set_yticks(range(len(objectives)), objectives, fontsize=size)
    axes.set_ylim(len(objectives) - 0.4, -0.75)
    axes.margins(x=0.12)
    axes.set_title(f"{policy}\n{average_of(policy, report)}", fontsize=14, color=_INK, loc="left")
    axes.tick_params(length=0, labelcolor=_INK)
    axes.tick_params(axis="x", labelcolor=_SOFT, labelbottom=True)
    axes.grid(axis="x", color=_LINE)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_cell(axes: Axes, row: int, cell: dict[str, Any], size: float, *, has_word: bool) -> None:
    """The effect with its interval, and above them the verdict. A cell that is owed has a word and nothing else."""
    colour, told = _COLOURS[cell["verdict"]], f"{GLYPHS[cell['verdict']]} {word_of(cell)}"
    at = 0.0
    if cell["effect"] is not None and cell["verdict"] != "owed":
        at = cell["effect"]
        told = f"{at:+.1f}  {told}"
        if cell["low"] is not None:
            axes.plot([cell["low"], cell["high"]], [row, row], color=colour, linewidth=size / 4, solid_capstyle="round")
        axes.plot([at], [row], marker="o", color=colour, markersize=size * 0.7, markeredgecolor="white")
    if has_word:
        above = axes.annotate(told, (at, row), (0, size * 0.6), textcoords="offset points", ha="center", va="bottom")
        above.set(color=colour, fontsize=size * 0.8)


def average_of(policy: str, report: dict[str, Any]) -> str:
    """The average of a policy's cells with its seeds, once nothing is owed."""
    for item in report["contrasts"] if report["is_complete"] else ():
        if (item["kind"], item["name"]) == ("policy", policy):
            return f"average {interval_of(item)}, {seeds_of(item, len(report['seeds']))}"
    return ""


def _write_words(figure: Any, report: dict[str, Any]) -> None:
    """Title, the finding, what the numbers are, and the verdicts by colour."""
    lines = textwrap.wrap(report["headline"], 100)
    figure.text(0.03, 0.965, f"{report['preset']}: {report['description']}", fontsize=15, color=_SOFT, va="top")
    figure.text(0.03, 0.92, "\n".join(lines), fontsize=19, fontweight="bold", color=_INK, va="top", linespacing=1.35)
    note = (
        "Change of success against each policy's warm start, percentage points, with 95 % intervals. "
        f"{counted(len(report['seeds']), 'seed')}, {report['num_tasks']} tasks. Grey band: margin of equivalence. "
        f"Digest {report['digest']}."
    )
    figure.text(0.03, 0.03, note, fontsize=12, color=_SOFT)
    x = 0.03
    for verdict in GLYPHS:
        if any(cell["verdict"] == verdict for cell in report["cells"]):
            word = verdict.replace("_", " ")
            figure.text(x, 0.065, f"{GLYPHS[verdict]} {word}", fontsize=13, color=_COLOURS[verdict])
            x += 0.03 + 0.009 * len(word)
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.15, top=0.82 - 0.04 * len(lines), wspace=0.08, hspace=0.5)
