"""What a form's own fields refuse is named before a plan is run, as the browser says it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from dllm_rl.records.tasks import Control, Observation
from dllm_rl.session import Session
from harness.environments import SiteEnvironment, SiteSettings
from harness.environments.site.draft import draft

# By field: its attributes, a value that it refuses and why, and one that it takes.
FIELDS = {
    "whole": ("type=number", "2.5", "between the steps of 1", "2"),
    "small": ("type=number max=9", "10", "above 9", "9"),
    "large": ("type=number min=5", "4", "below 5", "5"),
    "code": ("pattern='[A-Z]{2}[0-9]+'", "ab1", "not of the pattern [A-Z]{2}[0-9]+", "AB1"),
    "link": ("type=url", "example", "not what the browser takes for type url", "http://example.com/"),
    "mail": ("type=email", "ann", "not what the browser takes for type email", "ann@example.com"),
    "short": ("maxlength=3", "four", "longer than 3 characters", "two"),
    "long": ("minlength=5", "four", "shorter than 5 characters", "fifth"),
    "day": ("type=date min=2026-02-01", "2026-01-31", "below 2026-02-01", "2026-02-01"),
}
INPUTS = "".join(f"<label>{name} <input name={name} {FIELDS[name][0]}></label>" for name in FIELDS)


def name_of(task_id: str) -> str:
    """The name in the file."""
    return task_id.split("/")[1].split(".")[0]


@pytest.mark.browser
def test_what_the_browser_would_not_send_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    for page, more in (("checked", ""), ("unchecked", " novalidate")):
        head = f"<!doctype html><title>{page}</title><h1>{page}</h1>"
        form = f"<form method=post{more}>{INPUTS}<button>Send</button></form>"
        (tmp_path / "site" / f"{page}.html").write_text(head + form)
    rows = [
        *({"id": f"{name}-no", "start": "/checked.html", "values": {name: row[1]}} for name, row in FIELDS.items()),
        {"id": "yes", "start": "/checked.html", "values": {name: row[3] for name, row in FIELDS.items()}},
        {"id": "lax", "start": "/unchecked.html", "values": {"code": "ab1", "mail": "ann"}},
    ]
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(f"{json.dumps({**row, 'split': 'test'})}\n" for row in rows))
    with Session(SiteEnvironment(SiteSettings(folder=tmp_path / "site", tasks=file, executor="fast"))) as site:
        tasks = site.tasks("test")
        outcomes = site.run_many([(task, site.gold_plan(task)) for task in tasks])
        refused = {
            item.task_id.split("/")[1].split(".")[0]: item.reason for item in site.environment.all_tasks.unsolvable
        }
    assert refused == {f"{name}-no": f"{name}: {row[2]}" for name, row in FIELDS.items()}
    assert [(item.task_id.split("/")[1].split(".")[0], item.is_success) for item in outcomes] == [
        ("yes", True),
        ("lax", True),
    ]


def test_a_drawn_task_fills_a_row_of_boxes() -> None:
    code = Control(ref="p1.e1", kind="text", name="Code", field="c[]", options=("4 characters",), required=True)
    drawn = draft(Observation(titles=("",), controls=(code,)), "/", Random(0))["values"]["Code"]
    assert len(drawn) == 4 and drawn.isdigit()
