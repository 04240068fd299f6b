"""The report of a run: one offline page, its JSON twin, and the verdict table for terminals and papers."""

from experiments.report.build import build_report, write_report
from experiments.report.tables import verdict_table

__all__ = ["build_report", "verdict_table", "write_report"]
