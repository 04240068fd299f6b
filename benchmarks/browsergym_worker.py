"""BrowserGym's side of `benchmarks.beside_browsergym`: run by an interpreter that has it, and nothing of ours.

A line on stdin is an episode, `{"task": "click-test", "seed": 3, "delays": false}`; the answer is a line,
`{"seconds": 1.2, "reward": 1.0}`. Started as `browsergym_worker.py <chromium>`, with MINIWOB_URL and
PLAYWRIGHT_BROWSERS_PATH set.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Find = Callable[[str], str]


def actions(task: str, goal: str, tree: str) -> list[str]:
    """What solves an episode, in BrowserGym's actions.

    Args:
        task: Name of the MiniWoB++ task.
        goal: What the page asks for.
        tree: BrowserGym's accessibility tree as text.
    """
    quoted = re.findall(r'"([^"]*)"', goal)
    boxes, buttons = (re.findall(rf"\[(\w+)\] {role}\b", tree) for role in ("textbox", "button"))
    if task == "click-test":
        return [f'click("{buttons[0]}")']
    if task in ("enter-text", "login-user"):
        filled = [f"fill({json.dumps(box)}, {json.dumps(text)})" for box, text in zip(boxes, quoted, strict=False)]
        return [*filled, f'click("{buttons[0]}")']
    raise ValueError(f"no solution for '{task}'")


def provide(chromium: str) -> None:
    """Put the given Chromium where Playwright looks for its own, since BrowserGym's chat takes no other path."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        place = Path(playwright.chromium.executable_path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f'#!/bin/sh\nexec "{chromium}" --no-sandbox "$@"\n')
    place.chmod(0o755)


def environment(task: str, *, has_delays: bool) -> Any:
    """One environment, with BrowserGym's default delays or none."""
    import gymnasium

    quick = {} if has_delays else {"slow_mo": 0, "pre_observation_delay": 0}
    return gymnasium.make(f"browsergym/miniwob.{task}", disable_env_checker=True, **quick)


def episode(world: Any, task: str, seed: int) -> tuple[float, float]:
    """Seconds and reward of one episode, from reset to its last action."""
    from browsergym.utils.obs import flatten_axtree_to_str  # pyright: ignore[reportMissingImports]

    started = time.perf_counter()
    observation, _ = world.reset(seed=seed)
    reward = 0.0
    for action in actions(task, observation["goal"], flatten_axtree_to_str(observation["axtree_object"])):
        observation, reward, _, _, _ = world.step(action)
    return time.perf_counter() - started, float(reward)


def main(arguments: Sequence[str]) -> None:
    """Answer one line after another."""
    # What BrowserGym prints must not be taken for an answer.
    out, sys.stdout = sys.stdout, sys.stderr
    provide(arguments[0])
    # Registers the tasks.
    import browsergym.miniwob  # noqa: F401  # pyright: ignore[reportMissingImports]

    worlds: dict[tuple[str, bool], Any] = {}
    print(json.dumps({"is_ready": True}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        key = (asked["task"], asked["delays"])
        if key not in worlds:
            worlds[key] = environment(key[0], has_delays=key[1])
        seconds, reward = episode(worlds[key], asked["task"], asked["seed"])
        print(json.dumps({"seconds": seconds, "reward": reward}), file=out, flush=True)
    for world in worlds.values():
        world.close()


if __name__ == "__main__":
    main(sys.argv[1:])
