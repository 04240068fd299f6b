"""The sizes that the documentation states are those of the presets."""

from __future__ import annotations

from pathlib import Path

from experiments.cli.preset_table import markdown


def test_the_documented_sizes_are_those_of_the_presets() -> None:
    text = (Path(__file__).parents[3] / "docs" / "presets.md").read_text()
    table = text.split("<!-- sizes -->\n")[1].split("<!-- /sizes -->")[0]
    assert table == markdown(), "run `python -m experiments.cli.preset_table` and put its output between the marks"
