"""The scripts that run inside a page, joined into one that is added to every document before its own scripts."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

_PARTS = (
    "patience.js", "roots.js", "inventory.js", "boxes.js", "resolve.js", "keyboard.js", "plain.js", "actions.js",
    "real_input.js", "explore.js", "survey.js", "view.js",
)  # fmt: skip
_EXPORTS = (
    "inventory, choices, identities, perform, prepare, nextBox, readBackTarget, look, stay, explore, answer, "
    "storedAtStart, openers, open, settled, selected, confirms, senders, rules, fillIn, view, scrollPage, holdTime, "
    "passTime"
)
# For episodes: added after `init_script`, it lets time pass only where a policy waits.
HOLD_TIME = "window.__dllm.holdTime()"
# A tab opens on about:blank, so the first document of a rollout is the second of its history.
FIRST_HISTORY_LENGTH = 2
_USAGE = """const usage = async () => ((await navigator.storage?.estimate())?.usage ?? 0);"""
# Run at the end of a rollout; true if no database, cache or file is left that only a new context could remove.
# The document stays until the next load, but nothing of it is shown: the browser's own message at a field that it found
# invalid is painted for as long as it is shown, which takes a fifth of a core and more for every idle tab.
LEAVE = f"""async () => {{
  {_USAGE}
  document.activeElement?.blur();
  document.documentElement?.style?.setProperty("display", "none", "important");
  for (let id = setTimeout(() => {{}}); id > 0; id--) clearTimeout(id);
  for (let id = requestAnimationFrame(() => {{}}); id > 0; id--) cancelAnimationFrame(id);
  localStorage.clear();
  sessionStorage.clear();
  window.name = "";
  history.replaceState(null, "", "/__dllm_left");
  return (await usage()) === 0;
}}"""
# For a page of which nothing may have been stored.
IS_UNTOUCHED = f"""async () => {{
  {_USAGE}
  return localStorage.length === 0 && sessionStorage.length === 0 && document.cookie === "" && (await usage()) === 0;
}}"""


@cache
def init_script(*, is_used_again: bool = True) -> str:
    """The whole script; it leaves one name behind, `__dllm`, and captures the native setters before a page can.

    Args:
        is_used_again: Whether the tab serves several rollouts, so that each document looks for what was left behind.
    """
    folder = files(__name__)
    determinism = (folder / "determinism.js").read_text()
    frame = (folder / "frame.js").read_text()
    stored = (folder / "stored.js").read_text()
    body = "\n".join((folder / part).read_text() for part in _PARTS)
    exported = f"Object.defineProperty(window, '__dllm', {{ value: {{ {_EXPORTS} }} }});"
    constants = f"const FIRST_HISTORY_LENGTH = {FIRST_HISTORY_LENGTH}, IS_USED_AGAIN = {str(is_used_again).lower()};"
    return f"(() => {{\n{determinism}\n}})();\n(() => {{\n{constants}\n{frame}\n{stored}\n{body}\n{exported}\n}})();"
