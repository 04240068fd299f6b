"""Long measurements say how far they are, on standard error and without a flood of lines."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from experiments.cli import counter as module
from experiments.cli.counter import counter


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_with_the_time_left(clock):
    text = io.StringIO()
    with counter("val, rollouts", Console(file=text)) as count:
        for seconds, done in ((10, 10), (20, 20), (25, 30), (60, 60), (90, 120)):
            clock[0] = 100.0 + seconds
            count(done, 120)
    assert text.getvalue().splitlines() == [
        "val, rollouts: 20/120, about 2 min left",
        "val, rollouts: 60/120, about 1 min left",
    ]


def test_nothing_is_promised_before_anything_is_done(clock):
    text = io.StringIO()
    with counter("plans", Console(file=text)) as count:
        clock[0] += 20
        count(0, 7)
    assert text.getvalue() == "plans: 0/7\n"


def test_a_terminal_gets_a_bar_that_goes_away():
    text = io.StringIO()
    with counter("plans", Console(file=text, force_terminal=True, width=80)) as count:
        count(3, 7)
    assert "3/7" in text.getvalue()
    assert text.getvalue().endswith("\x1b[2K")
