"""Without a network, an id of the hub is refused at once, or read from the cache of downloads."""

from __future__ import annotations

import http.server
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.hub import commit_of, needs_hub, unreachable, use_cache_only
from dllm_rl.policies.loading import load_policy
from experiments.run.demonstrations import read_demonstrations


@pytest.fixture
def no_network(monkeypatch, tmp_path: Path) -> Path:
    """No hub behind its address; returns the empty cache of downloads."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_what_is_here_or_is_a_path_is_not_asked_for(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert needs_hub("GSAI-ML/LLaDA-8B-Instruct") and needs_hub("gpt2")
    assert not any(map(needs_hub, ("mine", "./other", "/models/x", "runs/warmstart/mine", "builtin:masked")))


@pytest.mark.usefixtures("no_network")
def test_a_missing_network_is_told_at_once(monkeypatch) -> None:
    def wait(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s to try again")

    monkeypatch.setattr(time, "sleep", wait)
    with pytest.raises(
        CheckpointError, match=r"cannot load 'someone/model'.*http://127\.0\.0\.1:9.*refused.*hf download"
    ):
        load_policy("someone/model", facts={"family": "masked"})
    with pytest.raises(ConfigError, match=r"'someone/plans': .*the hub cannot be reached"):
        read_demonstrations("someone/plans")


def test_what_was_downloaded_before_is_read_from_the_cache(no_network: Path) -> None:
    folder = no_network / "models--someone--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("c0ffee")
    (folder / "snapshots/c0ffee").mkdir(parents=True)
    (folder / "snapshots/c0ffee/config.json").write_text("{}")
    assert use_cache_only("someone/model")
    assert (commit_of("someone/model"), commit_of("someone/other"), commit_of("builtin:masked")) == (
        "c0ffee",
        None,
        None,
    )


def test_a_hub_that_answers_is_reachable_whatever_it_says(monkeypatch, no_network: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert unreachable() == ""
