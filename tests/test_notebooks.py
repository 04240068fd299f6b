"""The notebooks run from top to bottom, and show what their texts say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dllm_rl import registry
from tests.notebooks import FOLDER, execute

NAMES = ["collapse_of_a_toy", "objective_of_your_own"]


@pytest.fixture(scope="module")
def shown() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """What the cells of each notebook showed, in order. What they register is forgotten afterwards."""
    registry.names("objective")
    known = dict(registry._REGISTRY["objective"])
    yield {name: outputs(execute(FOLDER / f"{name}.ipynb")) for name in NAMES}
    registry._REGISTRY["objective"] = known


def outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in notebook["cells"] for output in cell.get("outputs", ())]


def printed(found: list[dict[str, Any]]) -> str:
    return "".join("".join(output["text"]) for output in found if output["output_type"] == "stream")


def rich(found: list[dict[str, Any]], kind: str) -> list[str]:
    return ["".join(output["data"][kind]) for output in found if kind in output.get("data", {})]


def test_every_notebook_is_run_here_and_stored_with_what_it_shows() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES
    for name in NAMES:
        stored = json.loads((FOLDER / f"{name}.ipynb").read_text())
        assert rich(outputs(stored), "image/png"), f"python -m tests.notebooks has not run {name}"


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_notebook_lead_to_files_that_exist(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text()
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets and [target for target in targets if not (FOLDER / target).is_file()] == []


@pytest.mark.slow
def test_one_run_learns_and_the_other_collapses(shown: dict[str, list[dict[str, Any]]]) -> None:
    found = shown["collapse_of_a_toy"]
    sound, large = (line for line in printed(found).splitlines() if line.startswith("learning rate"))
    assert "No sign of collapse" in sound
    assert "Off-policy blow-up" in large
    rollout, trajectory = rich(found, "text/html")
    assert "reward" in rollout and "step that drew each position" in trajectory


@pytest.mark.slow
def test_the_objective_of_the_notebook_keeps_its_promises_and_trains(shown: dict[str, list[dict[str, Any]]]) -> None:
    found = shown["objective_of_your_own"]
    assert "properties hold" in printed(found)
    rollout, film = rich(found, "text/html")
    assert "reward" in rollout and film.startswith("<iframe")
