"""The pages on objectives and metrics tell the truth: every method and metric stands there, and the example works."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from dllm_rl import registry
from dllm_rl.policies.process import ANY
from dllm_rl.registry import families_of
from dllm_rl.testing import check_objective
from dllm_rl.training.metrics import LOSS_METRICS
from tests.examples import example
from tests.frozen import frozen_objectives
from tests.objectives.losses import loss_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "objectives.md").read_text()
METHODS = PAGE.split("## The methods")[1].split("\n## ")[0]
ROWS = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for cells in (line.strip("|").split("|") for line in METHODS.splitlines() if line.startswith("| `"))
}
ORDER = ("autoregressive", "masked", "block", "slot", "flow")


@pytest.mark.parametrize("name", ROWS)
def test_the_table_states_what_each_method_declares(name: str) -> None:
    cells, cls = ROWS[name], registry.get("objective", name)
    families = ", ".join(family for family in ORDER if family in families_of(cls))
    assert cells[0] == cls.paper
    assert cells[1] == cls.level
    assert cells[-1] == ("all" if cls.families == (ANY,) else families)
    beta = re.search(r"(?<= )(\.\d+|\de-\d)$", cells[5])
    assert (float(beta.group()) if beta else 0.0) == cls().beta, "the KL column ends with beta"


def test_the_table_names_every_method_whose_numbers_are_frozen() -> None:
    assert set(ROWS) == set(frozen_objectives())


def test_the_table_of_agreement_says_where_parity_changes_options() -> None:
    section = PAGE.split("## Beside public code")[1].split("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| `")]
    parities = {name: parity.strip() for names, _, parity in rows for name in re.findall(r"`(\w+)`", names)}
    for name, cls in registry.items("objective"):
        published = vars(cls).get("published")
        if published is None:
            assert not parities.get(name), f"{name} has no published options, but the page names some"
        else:
            assert all(key in parities[name] or key in ("kl", "advantage", "num_steps") for key in published), name


@pytest.mark.parametrize("name", registry.names("objective"))
def test_each_metric_of_a_loss_is_documented(name: str) -> None:
    documented = set(re.findall(r"`([\w/]+)`", (DOCS / "metrics.md").read_text()))
    objective = registry.get("objective", name)(beta=0.1)
    item = example(families_of(objective)[-1])
    generator = torch.Generator().manual_seed(0)
    views = objective.views(item.rollouts, item.policy.process, generator)
    new = item.policy.view_log_probs(item.rollouts, views).detach()
    metrics = loss_of(objective, item.rollouts, views, new, new, new).metrics
    assert set(metrics) <= documented


def test_the_example_registers_and_passes_the_suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = dict(registry._REGISTRY["objective"])
    monkeypatch.setitem(registry._REGISTRY, "objective", known)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 40
    (tmp_path / "smooth_espo.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("smooth_espo")
    objective = registry.build("objective", "smooth_espo", {"width": 0.1}, family="flow")
    assert len({family for family, _ in check_objective(objective)}) == 5


def test_the_public_list_of_loss_metrics_is_that_of_the_page() -> None:
    section = (DOCS / "metrics.md").read_text().split("## From the loss")[1]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([\w/]+)`", " ".join(rows))) >= LOSS_METRICS
