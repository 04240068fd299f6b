"""The report of a run: one offline page, its JSON twin, a picture for slides, and a table for terminals and papers."""

from pathlib import Path

from experiments.report.build import build_report, write_report
from experiments.report.poster import write_poster
from experiments.report.tables import Verdicts, verdict_table
from experiments.run.folder import RunFolder

__all__ = ["Verdicts", "build_report", "verdict_table", "verdicts", "write_poster", "write_report"]


def verdicts(run: Path | str) -> Verdicts:
    """Judge a run, given by its folder or its preset's name, as far as it is finished."""
    return Verdicts(report=build_report(RunFolder.find(Path(run)).root))
