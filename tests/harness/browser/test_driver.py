"""A machine on which Playwright's driver cannot run is told so, by one message and without a traceback."""

from __future__ import annotations

import json

import pytest

from tests.experiments.cli.test_cli import said

LACKING = "error while loading shared libraries: libatomic.so.1: cannot open shared object file"


@pytest.fixture
def without_libatomic(tmp_path, monkeypatch) -> None:
    """In place of the driver's program one that dies as the loader lets it die on a small Debian."""
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\necho '{node}: {LACKING}' >&2\nexit 127\n")
    node.chmod(0o755)
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", str(node))


def test_a_command_says_what_the_driver_lacks(without_libatomic, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = said(("eval", "oracle", "--split", "val", "--max-tasks", "1"), monkeypatch, capfd)
    assert code == 2 and "Traceback" not in errors
    assert f"driver does not start: node: {LACKING}" in errors and "apt-get install libatomic1" in errors


def test_the_doctor_says_what_the_driver_lacks(without_libatomic, monkeypatch, capfd) -> None:
    code, shown, _ = said(("doctor", "--json"), monkeypatch, capfd)
    (check,) = [check for check in json.loads(shown) if check["name"] == "browser"]
    assert code == 1 and check["state"] == "fail"
    assert "libatomic.so.1" in check["found"] and "apt-get install libatomic1" in check["found"]
