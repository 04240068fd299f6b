"""What a page announces as errors, read without a browser."""

from __future__ import annotations

import pytest

from harness.recorder.html import shown


def errors(classes: str) -> tuple[str, ...]:
    return shown(f"<div role=alert class='{classes}'>It says so.</div>".encode()).errors


@pytest.mark.parametrize(
    "classes",
    ["alert alert-success", "alert alert-info", "MuiAlert-root MuiAlert-standardSuccess", "status", "flash notice"],
)
def test_an_alert_that_says_that_all_is_well_announces_no_error(classes: str) -> None:
    assert errors(classes) == ()


@pytest.mark.parametrize(
    "classes",
    ["", "alert", "alert alert-danger", "alert alert-warning", "status status-error", "info invalid", "successor"],
)
def test_any_other_alert_announces_an_error(classes: str) -> None:
    assert errors(classes) == ("It says so.",)


def test_an_error_within_good_news_is_one() -> None:
    page = "<div role=alert class=alert-info>Nearly done.<ul class=errorlist><li>No such town</ul></div>"
    assert shown(page.encode()).errors == ("No such town",)
