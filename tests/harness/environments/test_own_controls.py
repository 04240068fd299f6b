"""Every kind of control that people meet, in both executors: seen by the scout, given by the gold plan, received."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dllm_rl.records.tasks import Observation, Outcome
from dllm_rl.session import Session
from harness.environments import SiteEnvironment, SiteSettings
from tests.harness.environments.own_pages.controls import CONTROLS

FOLDER = Path(__file__).parent / "own_pages"
pytestmark = pytest.mark.browser
# Pages that hold no field for the name.
WITHOUT_NAME = {"table-cells"}
Runs = dict[str, tuple[Outcome, Outcome]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session[SiteEnvironment]]:
    file = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    lines = []
    for page, (_, wanted) in CONTROLS.items():
        values = wanted if page in WITHOUT_NAME else {"Your name": "Ann", **wanted}
        lines.append(json.dumps({"id": page, "start": f"/{page}", "values": values, "split": "test"}))
    file.write_text("\n".join(lines))
    settings = SiteSettings(application=f"{FOLDER}/controls.py:application", tasks=file, fixtures=FOLDER / "fixtures")
    with Session(SiteEnvironment(settings)) as opened:
        yield opened


@pytest.fixture(scope="module", params=["fast", "trusted"])
def runs(site: Session[SiteEnvironment], request: pytest.FixtureRequest) -> Runs:
    """By page, what the gold plan came to, and the gold plan without its first line."""
    tasks = site.tasks("test")
    plans = [site.gold_plan(task) for task in tasks]
    pairs = [*zip(tasks, plans, strict=True)]
    pairs += [(task, plan.partition("\n")[2]) for task, plan in pairs]
    outcomes = site.run_many(pairs, executor=request.param, isolation="page")
    return {task.site[1:]: (outcomes[at], outcomes[at + len(tasks)]) for at, task in enumerate(tasks)}


def test_every_page_has_a_task(site: Session[SiteEnvironment]) -> None:
    site.tasks("test")
    assert {item.task_id: item.reason for item in site.environment.all_tasks.unsolvable} == {}


@pytest.mark.parametrize("page", CONTROLS)
def test_a_control_is_used_as_people_use_it(runs: Runs, page: str) -> None:
    gold, spoilt = runs[page]
    assert gold.is_success, (gold.notes(), gold.fields, [item.text + " -> " + item.note for item in gold.actions])
    assert all(item.status == "ok" for item in gold.actions), gold.actions
    assert not spoilt.is_success


def observation(site: Session[SiteEnvironment], page: str) -> Observation:
    (task,) = (task for task in site.tasks("test") if task.site == f"/{page}")
    (seen,) = site.observe_many([task])
    return seen


def test_a_format_is_told_where_the_kind_does_not_say_it(site: Session[SiteEnvironment]) -> None:
    told: dict[str, Any] = {page: observation(site, page).controls[1].options for page in ("week", "time", "color")}
    assert told == {"week": ("YYYY-Www",), "time": ("hh:mm",), "color": ("#rrggbb",)}


def test_a_row_of_boxes_is_one_control_where_the_page_makes_one_value_of_it(site: Session[SiteEnvironment]) -> None:
    names = ("code", "code-by-keys", "code-of-one-name", "marks-of-one-name")
    told = {page: [(item.name, item.options) for item in observation(site, page).controls[1:-1]] for page in names}
    assert told == {
        "code": [("Code", ("4 characters",))],
        "code-by-keys": [("Code from your letter", ("6 characters",))],
        "code-of-one-name": [("Code", ("4 characters",))],
        "marks-of-one-name": [("Taste", ()), ("Smell", ()), ("Look", ())],
    }


@pytest.mark.parametrize("executor", ["fast", "trusted"])
def test_a_row_of_boxes_is_written_anew_emptied_and_says_what_it_shows(
    site: Session[SiteEnvironment], executor: str
) -> None:
    (task,) = (task for task in site.tasks("test") if task.site == "/code")
    lines = (
        'fill p1.e1 "Ann"',
        'fill p1.e2 "98765"',
        "clear p1.e2",
        'fill p1.e2 "98"',
        'fill p1.e2 "0471"',
        "submit p1.e3",
    )
    (outcome,) = site.run_many([(task, "\n".join(lines))], executor=executor, isolation="page")
    assert outcome.is_success, outcome
    notes = [item.note for item in outcome.actions[1:5]]
    assert notes == [
        'changed: p1.e2 shows "9876", you wrote "98765"',
        "ok clear p1.e2",
        "ok fill p1.e2",
        "ok fill p1.e2",
    ]


def test_what_a_click_opens_is_observed_with_the_click(site: Session[SiteEnvironment]) -> None:
    page = observation(site, "wizard")
    (town,) = (item for item in page.controls if item.name == "Home town")
    assert town.condition is not None
    opener = page.control(town.condition.ref)
    assert opener is not None
    assert opener.name == "Next"


def test_a_form_of_two_documents_has_two_pages(site: Session[SiteEnvironment]) -> None:
    assert observation(site, "two-documents").titles == ("two-documents", "second")
