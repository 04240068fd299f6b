"""One step of training on the environments of others, by the function behind `dllm-rl train`, in real Chromium."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from experiments.cli.grid import train_cell

LOOKALIKE = Path(__file__).resolve().parents[2] / "harness" / "environments" / "lookalike"
SMALL = [
    "train.steps=1",
    "train.prompts_per_step=2",
    "train.group_size=2",
    "training_tasks.max_tasks=2",
    "evaluation.max_tasks=1",
    "evaluation.num_samples=1",
]
FORMFACTORY = {"folder": str(LOOKALIKE), "application": "site.py:application", "fixtures": str(LOOKALIKE / "fixtures")}


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "options"),
    [("formfactory", FORMFACTORY), ("miniwob", {"names": ["enter-text", "click-checkboxes"]})],
)
def test_a_cell_is_trained_evaluated_and_reported(tmp_path: Path, name: str, options: dict) -> None:
    environment = yaml.safe_dump({"name": name, "options": options}, default_flow_style=True, width=10_000).strip()
    words = ["masked", "grpo", f"environment={environment}", *SMALL]
    assert train_cell(words, preset_name="quick", seed=0, out=tmp_path) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert [cell["id"] for cell in report["cells"]] == ["masked-grpo"]
    (written,) = tmp_path.glob("cells/*/seed0/rollouts.jsonl")
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert len(rows) == 4
    assert {row["fault"] for row in rows} <= {"none", "agent"}
