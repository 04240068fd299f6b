"""The live views: what a terminal and a browser see of a grid that still runs, and that looking disturbs nothing."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
import uvicorn
from playwright.async_api import async_playwright, expect
from rich.console import Console

from dllm_rl.errors import ConfigError
from dllm_rl.files import write_json
from experiments.report.serve import make_app, serve
from experiments.report.watch import look, show, watch
from experiments.run.folder import ALARMS_FILE
from experiments.run.status import Status, claim, write_status
from harness.browser.chromium import launch
from tests.experiments.synthetic import finished, write_run

CELLS = ("autoregressive-grpo", "masked-grpo")


@pytest.fixture
def grid(tmp_path):
    return write_run(
        tmp_path / "grid",
        seeds=(0, 1),
        num_steps=20,
        num_tasks=4,
        num_samples=1,
        policies=("autoregressive", "masked"),
        objectives=("grpo",),
    )


def seed_folder(grid, cell: str, seed: int):
    return grid / "cells" / f"{cell}-abc" / f"seed{seed}"


def text_of(view) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(show(view))
    return console.export_text()


def test_a_finished_grid_is_shown_once_and_ends(grid, capsys):
    assert watch(grid, interval=1, is_once=False) == 0
    text = capsys.readouterr().out
    assert "10 done; finished" in text
    assert "masked-grpo" in text


def test_a_running_grid_shows_states_alarms_causes_and_time_left(grid):
    failed, stopped, running = (
        seed_folder(grid, cell, seed) for cell, seed in ((CELLS[0], 0), (CELLS[0], 1), (CELLS[1], 1))
    )
    write_status(failed, Status(state="failed", cause="RuntimeError: the page burned", seconds=9.0))
    write_status(stopped, finished(stopped / "evaluation-abc.parquet", stopped_at=7, cause="reward fell", seconds=40.0))
    write_json(running / ALARMS_FILE, {"stopped_at": None, "because": "", "alarms": [{"message": "faults everywhere"}]})
    rows = (running / "metrics.jsonl").read_text().splitlines(keepends=True)
    (running / "metrics.jsonl").write_text("".join(rows[:5]) + rows[5][:20])
    write_status(running, Status(state="running", pid=1))
    with claim(running):
        view = look(grid)
        text = text_of(view)
    seed = next(item for item in view.units if (item.cell, item.seed) == (CELLS[1], 1))
    assert (seed.status.state, seed.num_steps, seed.total_steps) == ("running", 5, 20)
    assert "the page burned" in text
    assert "stopped: autoregressive-grpo seed 1: reward fell" in text
    assert "faults everywhere" in text
    # Of the usual 142 s, five steps of 5.1 s are behind it; one process is at work.
    assert view.seconds_left() == pytest.approx(142 - 5 * 5.1, abs=0.5)
    assert "about 2 min left with 1 at work" in text
    assert "no process works on it" in text_of(look(grid))


def test_before_the_first_step_there_is_no_pace(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "preset": "new",
                "seeds": [0],
                "digest": "0",
                "settings": {"train": {"steps": 3}},
                "cells": [
                    {"id": "a", "policy": "p", "objective": "o", "role": "cell", "folder": "cells/a", "digest": "0"}
                ],
            }
        )
    )
    view = look(tmp_path)
    assert view.seconds_left() is None
    assert "0/3" in text_of(view)


@contextmanager
def served(grid):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(grid, max_share=1e9), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read().decode()


def test_the_served_twin_follows_the_files_and_nothing_is_written(grid):
    with served(grid) as address:
        before = {path: path.stat().st_mtime_ns for path in grid.rglob("*")}
        version, twin = get(f"{address}/version"), json.loads(get(f"{address}/report.json"))
        assert twin["is_complete"]
        assert get(f"{address}/version") == version
        assert {path: path.stat().st_mtime_ns for path in grid.rglob("*")} == before
        write_status(seed_folder(grid, CELLS[1], 0), Status(state="failed", cause="burned"))
        assert get(f"{address}/version") != version
        seeds = next(cell for cell in json.loads(get(f"{address}/report.json"))["cells"] if cell["id"] == CELLS[1])[
            "seeds"
        ]
        assert [seed["state"] for seed in seeds] == ["failed", "done"]


def test_films_are_served_and_no_other_file_of_the_run(grid):
    with served(grid) as address:
        cells = json.loads(get(f"{address}/report.json"))["cells"]
        film = cells[0]["waypoints"]["tasks"][0]["plans"][-1]["film"]
        assert f'href="{film}"' in get(address)
        assert get(f"{address}/{film}") == (grid / film).read_text()
        (grid.parent / "waypoints").mkdir(exist_ok=True)
        (grid.parent / "waypoints" / "step1.html").write_text("outside")
        for other in ("config.json", "results.parquet", "%2e%2e/waypoints/step1.html", f"{film}.no", "nothing"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{address}/{other}")


def test_other_names_of_this_machine_get_nothing(grid):
    with served(grid) as address, pytest.raises(urllib.error.HTTPError, match="400"):
        get(address, Host="evil.example")


def test_a_port_in_use_is_one_message(grid):
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="--port 0"):
        serve(grid, port=other.getsockname()[1])


@pytest.mark.browser
def test_an_open_page_refreshes_itself_without_console_errors(grid):
    """A seed goes from interrupted to failed while the page is open in real Chromium."""
    place = seed_folder(grid, CELLS[1], 0)
    write_status(place, Status(state="running", pid=1))
    with served(grid) as address:
        asyncio.run(_look(address, place))


async def _look(address, place):
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        page = await browser.new_page()
        messages = []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        await page.goto(address)
        await expect(page.locator("#faults")).to_contain_text("seed 0: owed")
        write_status(place, Status(state="failed", cause="the page burned"))
        await expect(page.locator("#faults")).to_contain_text("the page burned", timeout=60_000)
        assert messages == []
        await browser.close()
