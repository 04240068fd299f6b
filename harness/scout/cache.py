"""What the scout saw, kept in memory and on disk under the site's key and a digest of everything that renders sites."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from dllm_rl.files import replace_file
from dllm_rl.records.tasks import Condition, Control, Observation

_SCOUT_FILES = ("scout/explorer.py", "scout/walk.py", "in_page")


def default_cache_dir() -> Path:
    """The user's cache folder for scouted sites."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "dllm_rl" / "scout"
    is_mac = sys.platform == "darwin"
    return Path.home() / ("Library/Caches" if is_mac else ".cache") / "dllm_rl" / "scout"


@cache
def sites_digest() -> str:
    """SHA-256 of the site package and the scout, so that a changed site is scouted anew."""
    root = files("harness")
    return _digest(root / "sites", *(root / name for name in _SCOUT_FILES))


@cache
def harness_digest() -> str:
    """SHA-256 of the whole package, so that a changed way to run or to judge plans runs them anew."""
    return _digest(files("harness"))


def _digest(*parts: Traversable) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for name, content in _sources(part):
            digest.update(f"{name}\\0{len(content)}\\0".encode() + content)
    return digest.hexdigest()


def _sources(part: Traversable) -> list[tuple[str, bytes]]:
    if part.is_file():
        return [(part.name, part.read_bytes())]
    children = sorted(part.iterdir(), key=lambda item: item.name)
    return [found for child in children if child.name != "__pycache__" for found in _sources(child)]


class ScoutCache:
    """Pages by site key. `directory=None` keeps them in memory only."""

    def __init__(self, directory: Path | None) -> None:
        self._folder = directory / sites_digest()[:16] if directory else None
        self._pages: dict[str, Observation] = {}

    def get(self, key: str) -> Observation | None:
        """The page of this site, or None where it has not been scouted yet."""
        if key not in self._pages and self._folder:
            try:
                self._pages[key] = _read(json.loads((self._folder / f"{key}.json").read_text()))
            except (FileNotFoundError, json.JSONDecodeError):
                return None
        return self._pages.get(key)

    def put(self, key: str, page: Observation) -> None:
        """Keep a page; other processes may write the same one at the same time."""
        self._pages[key] = page
        if self._folder is None:
            return
        with replace_file(self._folder / f"{key}.json") as temporary:
            temporary.write_text(json.dumps(asdict(page)), encoding="utf-8")


def _read(record: dict[str, Any]) -> Observation:
    controls = []
    for item in record["controls"]:
        condition = Condition(**item["condition"]) if item["condition"] else None
        controls.append(Control(**{**item, "options": tuple(item["options"]), "condition": condition}))
    return Observation(titles=tuple(record["titles"]), controls=tuple(controls))
