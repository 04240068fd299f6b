"""BrowserGym's environments and actions on our sites, and on a site of one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("browsergym.core", reason="browsergym-core is not installed; it asks for a Playwright of its own")

import gymnasium

from dllm_rl.errors import ConfigError
from harness.browsergym import register_environment

pytestmark = pytest.mark.browser
PAGE = """<!doctype html><html lang=en><title>Join</title><h1>Join</h1><form method=post>
<label>Your name <input name=owner></label><button>Send</button></form>"""


def make(name: str) -> Any:
    return gymnasium.make(name, pre_observation_delay=0.1)


def bid(observation: dict[str, Any], role: str) -> str:
    """BrowserGym's name of the first element of a role."""
    from browsergym.utils.obs import flatten_axtree_to_str

    found = re.search(rf"\[(\w+)\] {role}", flatten_axtree_to_str(observation["axtree_object"]))
    assert found is not None
    return found[1]


def test_a_site_of_ones_own_is_worked_on_by_its_actions(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text(PAGE)
    (tmp_path / "tasks.jsonl").write_text('{"values": {"Your name": "Ann"}, "split": "test"}\n')
    options = {"folder": str(tmp_path / "site"), "tasks": str(tmp_path / "tasks.jsonl")}
    (name,) = register_environment("site", options)
    for written, earned in (("Ann", 1.0), ("Bo", 0.0)):
        environment = make(name)
        observation, _ = environment.reset(seed=0)
        assert observation["goal"] == "Your name: Ann"
        observation, reward, is_done, _, _ = environment.step(f'fill("{bid(observation, "textbox")}", "{written}")')
        assert (reward, is_done) == (0.0, False)
        _, reward, is_done, _, info = environment.step(f'click("{bid(observation, "button")}")')
        assert (reward, is_done) == (earned, True), info
        environment.close()


def test_the_built_in_sites_are_served() -> None:
    names = register_environment("forms", {"counts": {"test": 2}}, count=2)
    assert len(names) == 2
    environment = make(names[0])
    observation, _ = environment.reset(seed=0)
    assert observation["goal"] and "/r/a1/" in observation["url"]
    environment.close()
    with pytest.raises(ConfigError, match="'toy_sort' has no pages"):
        register_environment("toy_sort")
