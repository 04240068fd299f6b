"""The sentences at the top of a report: what came out, and whether the controls allow to believe it."""

from __future__ import annotations

from collections import Counter
from typing import Any

MIN_POSITIVE_SEEDS = 3
_WORDS = {
    "improved": "improved",
    "regressed": "regressed",
    "equivalent": "equivalent to the warm start",
    "inconclusive": "inconclusive",
    "collapsed": "collapsed",
    "single_seed": "with a single seed",
    "failed": "failed",
}


def headline(cells: list[dict[str, Any]], controls: list[dict[str, Any]], *, is_complete: bool) -> str:
    """Say what came out. A broken positive control stands before anything else."""
    broken = [control["sentence"] for control in controls if control["state"] == "violated"]
    sentences = [*broken, _results(cells, is_complete=is_complete)]
    if not is_complete:
        sentences.insert(0, "This grid is still running: what is missing is counted as failed until it is there.")
    return " ".join(sentences)


def _results(cells: list[dict[str, Any]], *, is_complete: bool) -> str:
    judged = [cell for cell in cells if cell["effect"] is not None]
    if not judged:
        return "No cell has been evaluated yet."
    verdicts = {cell["verdict"] for cell in cells}
    if verdicts == {"failed"} and not is_complete:
        return f"No cell can be judged yet: none of {len(cells)} has all of its seeds."
    if "single_seed" in verdicts and verdicts <= {"single_seed", "failed"}:
        return _single_seed(cells, judged)
    counts = Counter(cell["verdict"] for cell in cells)
    parts = []
    for verdict, word in _WORDS.items():
        if counts[verdict]:
            names = [_named(cell) for cell in cells if cell["verdict"] == verdict]
            listed = f" ({', '.join(names)})" if verdict in ("improved", "regressed", "collapsed", "failed") else ""
            parts.append(f"{counts[verdict]} {word}{listed}")
    provisional = (
        " Verdicts are provisional: under five seeds." if any(cell["is_provisional"] for cell in cells) else ""
    )
    return f"Of {len(cells)} cell{'s' if len(cells) > 1 else ''}: {', '.join(parts)}.{provisional}"


def _single_seed(cells: list[dict[str, Any]], judged: list[dict[str, Any]]) -> str:
    best = max(judged, key=lambda cell: abs(cell["effect"]))
    difference = f"The largest difference is {best['effect']:+.1f} points ({best['id']})."
    if best["effect"] == 0:
        difference = "No cell differs from its warm start."
    seen = [cell["detectable"] for cell in judged if cell["detectable"] is not None]
    power = f" The smallest effect that any cell could have seen is {min(seen):.0f} points." if seen else ""
    lost = sum(cell["verdict"] == "failed" for cell in cells)
    failed = f" {lost} of {len(cells)} cells failed." if lost else ""
    return f"One seed decides nothing: no cell can be called improved. {difference}{power}{failed}"


def _named(cell: dict[str, Any]) -> str:
    if cell["verdict"] in ("improved", "regressed"):
        return f"{cell['id']} {cell['effect']:+.1f}"
    return cell["id"]


def positive_control(cell: dict[str, Any]) -> tuple[str, str]:
    """State and sentence of the positive control, judged only with three seeds or more."""
    name = f"Positive control ({cell['id']})"
    if cell["verdict"] == "improved":
        return "ok", f"{name} improved by {cell['effect']:+.1f} points: the trainer learns."
    if (cell["num_seeds"] or 0) < MIN_POSITIVE_SEEDS or cell["verdict"] == "failed":
        return "not judged", f"{name} is not judged: {cell['reason']}."
    return (
        "violated",
        f"{name} did not improve ({cell['reason']}): the trainer is broken, and no cell is to be believed.",
    )


def null_control(cell: dict[str, Any]) -> tuple[str, str]:
    """State and sentence of the null control: learning rate 0 must change nothing."""
    name = f"Null control ({cell['id']}, learning rate 0)"
    if cell["effect"] is None or cell["verdict"] == "failed":
        return "not judged", f"{name} is not judged: {cell['reason']}."
    if cell["verdict"] in ("improved", "regressed", "collapsed"):
        return "violated", f"{name} came out {cell['verdict']}: the comparison itself is broken."
    if cell["effect"] == 0 and cell["low"] == cell["high"]:
        return "ok", f"{name} reproduces its warm start exactly."
    if cell["verdict"] == "single_seed":
        return "noted", f"{name} differs from its warm start by {cell['effect']:+.1f} points: that much is chance."
    return "ok", f"{name} came out {cell['verdict']} ({cell['effect']:+.1f} points)."


def negative_control(cell: dict[str, Any]) -> tuple[str, str]:
    """State and sentence of the negative control: unshared masks must trip the estimator-noise alarm in every seed."""
    name = f"Negative control ({cell['id']}, unshared masks)"
    runs = [seed for seed in cell["seeds"] if seed["diagnosis"]["num_steps"]]
    if not runs:
        return "not judged", f"{name} has not run."
    tripped = sum(
        any(alarm["detector"] == "off_policy_at_start" for alarm in run["diagnosis"]["alarms"]) for run in runs
    )
    if tripped == len(runs):
        return "ok", f"{name} trips the estimator-noise alarm, as it must."
    return "violated", f"{name} tripped the alarm in {tripped} of {len(runs)} seeds: estimator noise would go unseen."


CONTROLS = {"positive": positive_control, "null": null_control, "negative": negative_control}
ABSENT = {
    "positive": "Positive control: it is the preset positive_control, not part of this run.",
    "null": "Null control: not part of this run.",
    "negative": "Negative control: not part of this run.",
}


def control_states(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """State of each kind of control: ok, violated, noted, not judged or absent."""
    states = []
    for role, judge in CONTROLS.items():
        found = [cell for cell in records if cell["role"] == role]
        for cell in found:
            state, sentence = judge(cell)
            states.append({"role": role, "state": state, "sentence": sentence, "cell": cell})
        if not found:
            states.append({"role": role, "state": "absent", "sentence": ABSENT[role], "cell": None})
    return states
