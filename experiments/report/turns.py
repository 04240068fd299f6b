"""What a report says of episodes: how many turns they took, and how they ended, before training and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dllm_rl.records.tasks import Ending
from experiments.report.load import Run
from experiments.run.results import UnitKey, is_lost

_COLUMNS = ("cell", "mode", "success", "fault", "num_turns", "ending")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSummary:
    """Sampled episodes of an evaluation. Lengths are means over valid episodes; None where there is none of a kind.

    Attributes:
        num: Episodes.
        turns_success: Turns of those that succeeded.
        turns_failure: Turns of the others.
        turns_a_success: Turns of all of them, for each success.
        endings: Share of the episodes that ended in each way.
    """

    num: int
    turns_success: float | None
    turns_failure: float | None
    turns_a_success: float | None
    endings: dict[str, float]


def episodes_of(run: Run) -> dict[str, dict[str, EpisodeSummary | None]] | None:
    """By cell, before and after; None for a grid of whole plans."""
    rows = [row for row in run.results.select(_COLUMNS).to_pylist() if row["mode"] == "sampled"]
    if not any(row["ending"] for row in rows):
        return None
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_cell.setdefault(row["cell"], []).append(row)
    found = {name: _summary(own) for name, own in by_cell.items()}
    return {
        cell.id: {"before": found.get(UnitKey(policy=cell.record.policy).label), "after": found.get(cell.id)}
        for cell in run.cells
    }


def _summary(rows: Sequence[dict[str, Any]]) -> EpisodeSummary:
    valid = [row for row in rows if not is_lost(row["fault"])]
    good = [row["num_turns"] for row in valid if row["success"]]
    bad = [row["num_turns"] for row in valid if not row["success"]]
    endings = Counter(row["ending"] for row in rows)
    return EpisodeSummary(
        num=len(rows),
        turns_success=_mean(good),
        turns_failure=_mean(bad),
        turns_a_success=sum(good + bad) / len(good) if good else None,
        endings={ending.value: endings[ending.value] / len(rows) for ending in Ending},
    )


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None
