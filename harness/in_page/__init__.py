"""The scripts that run inside a page, joined into one that is added to every document before its own scripts."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

_PARTS = ("inventory.js", "resolve.js", "actions.js", "real_input.js", "explore.js")
_EXPORTS = "inventory, perform, prepare, readBackTarget, look, explore, answer"
STORES_CLEARED = """async () => {
  document.cookie = "dllm_canary=1";
  localStorage.setItem("dllm_canary", "1");
  sessionStorage.setItem("dllm_canary", "1");
  localStorage.clear();
  sessionStorage.clear();
  for (const { name } of await indexedDB.databases()) indexedDB.deleteDatabase(name);
  for (const name of (await globalThis.caches?.keys()) ?? []) await caches.delete(name);
}"""
CANARY_GONE = """() => !("dllm_canary" in localStorage) && !("dllm_canary" in sessionStorage) &&
  !document.cookie.includes("dllm_canary")"""


@cache
def init_script() -> str:
    """The whole script; it leaves one name behind, `__dllm`, and captures the native setters before a page can."""
    folder = files(__name__)
    determinism = (folder / "determinism.js").read_text()
    body = "\n".join((folder / part).read_text() for part in _PARTS)
    exported = f"Object.defineProperty(window, '__dllm', {{ value: {{ {_EXPORTS} }} }});"
    return f"(() => {{\n{determinism}\n}})();\n(() => {{\n{body}\n{exported}\n}})();"
