"""Time to collapse by policy and by objective, over all seeds of all cells (controls excluded)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from experiments.analysis.collapse import Diagnosis
from experiments.analysis.collapse.survival import Lifetime, kaplan_meier, lifetime, log_rank
from experiments.report.load import CellRun


def survival_of(cells: Sequence[CellRun], diagnoses: dict[str, list[Diagnosis]]) -> list[dict[str, Any]]:
    """One record a policy and an objective: its survival curve, and the log-rank p against all others of its kind.

    Empty where nothing collapsed. The p-values are descriptive: they are not corrected for their number.
    """
    found = []
    for kind in ("policy", "objective"):
        groups: dict[str, list[Lifetime]] = {}
        for cell in cells:
            if cell.record.role == "cell":
                lives = [lifetime(item) for item in diagnoses[cell.id] if item.num_steps]
                groups.setdefault(getattr(cell.record, kind), []).extend(lives)
        for name, lives in groups.items():
            rest = [life for other, others in groups.items() if other != name for life in others]
            if lives:
                found.append(
                    {"kind": kind, "name": name, **asdict(kaplan_meier(lives)), "log_rank_p": log_rank(lives, rest)}
                )
    return found if any(item["num_collapsed"] for item in found) else []
