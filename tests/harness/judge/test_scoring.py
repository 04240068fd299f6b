"""Scores without a browser: 1 for the gold plan, 0 without one right change, and more for more."""

from __future__ import annotations

import pytest

from dllm_rl.records.tasks import SPLITS, Observation, Task
from harness.judge import score_plan
from harness.sites import expected_page, gold_plan, make_site, make_tasks, site_defaults


def scored(task: Task, page: Observation, plan: str) -> float:
    return score_plan(task, page, site_defaults(make_site(task.site)), plan)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("size", ["small", "full"])
def test_gold_is_one_and_grows_line_by_line(split: str, size) -> None:
    for task in make_tasks(split, count=30, size=size):
        page = expected_page(make_site(task.site))
        lines = gold_plan(task, page).splitlines()
        scores = [scored(task, page, "\n".join(lines[:count])) for count in range(len(lines) + 1)]
        assert scores[0] == 0.0
        assert scores[-1] == 1.0
        assert max(scores[:-1]) < 1.0


def test_submitting_alone_earns_nothing() -> None:
    for task in make_tasks("train", count=30):
        page = expected_page(make_site(task.site))
        buttons = [control.ref for control in page.controls if control.kind == "button"]
        assert scored(task, page, "\n".join(f"submit {ref}" for ref in buttons)) == 0.0


def test_what_was_not_asked_for_costs() -> None:
    spoilt = 0
    for task in make_tasks("train", count=30):
        page, wanted = expected_page(make_site(task.site)), {item.name for item in task.gold}
        extra = next((item for item in page.controls if item.kind == "text" and item.field not in wanted), None)
        if extra:
            spoilt += 1
            assert scored(task, page, f'fill {extra.ref} "more"\n{gold_plan(task, page)}') < 1.0
    assert spoilt
