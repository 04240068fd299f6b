"""Writes a run's report files: report.html, report.json, and the verdict table for papers."""

from __future__ import annotations

import json
from pathlib import Path

from dllm_rl.files import replace_file
from experiments.report.build import build_report
from experiments.report.page import render
from experiments.report.tables import latex, markdown


def write_report(run_dir: Path | str) -> None:
    """Judge and diagnose what is finished in a run folder, and write its report; a kill leaves the old files whole."""
    folder = Path(run_dir)
    report = build_report(folder)
    files = {
        "report.json": json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n",
        "report.html": render(report),
        "report_tables.md": markdown(report),
        "report_tables.tex": latex(report),
    }
    for name, text in files.items():
        with replace_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
