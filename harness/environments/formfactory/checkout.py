"""What a checkout holds: its application, the pages with forms that it links to, and its gold records.

Where things stand in the folder is found out rather than assumed: pages by following links, records as the JSON files
that are lists of records, and which records belong to which page by the names they share with its controls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Page
from harness.environments.formfactory.names import find_controls

MIN_SHARE = 0.5
MAX_PAGES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class FormRecords:
    """The gold of one form. file: relative to the checkout. path: of its page. records: key to value, as they stand."""

    form: str
    path: str
    file: str
    records: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A folder that the user has. application: `file:attribute` of its WSGI application (Flask objects are such).

    forms: page path to gold file, both as the user names them, where finding out is not wanted.
    """

    folder: Path
    application: str = "app.py:app"
    forms: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        file = self.application.rpartition(":")[0]
        if not (self.folder / file).is_file():
            raise ConfigError(
                f"no {file or 'application'} in '{self.folder}'. Give the folder of a checkout, and its application as "
                "<file>:<attribute>, such as app.py:app."
            )

    def gold_files(self) -> dict[str, tuple[Any, ...]]:
        """Records by file, for every JSON file that is a list of records or holds exactly one such list."""
        found = {}
        for path in sorted(self.folder.rglob("*.json")):
            if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(self.folder).parts):
                records = _records(path)
                if records:
                    found[path.relative_to(self.folder).as_posix()] = records
        return found

    def assign(self, pages: Mapping[str, Page]) -> tuple[FormRecords, ...]:
        """Give each page the gold file whose keys its controls bear, each file to one page. pages: by path."""
        files = self.gold_files()
        if self.forms is not None:
            pairs = list(self.forms.items())
            missing = [file for _, file in pairs if file not in files]
            if missing:
                raise ConfigError(f"no gold records in {', '.join(missing)}. Known: {', '.join(files) or 'none'}.")
        else:
            pairs = _best_pairs(files, pages)
        return tuple(
            FormRecords(form=Path(file).stem, path=path, file=file, records=files[file])
            for path, file in sorted(pairs, key=lambda pair: pair[1])
        )


def _records(path: Path) -> tuple[Any, ...]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return ()
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else list(content.values())
    is_list = isinstance(content, list) and content and all(isinstance(item, dict) for item in content)
    return tuple(content) if is_list else ()


def _best_pairs(files: Mapping[str, Sequence[Any]], pages: Mapping[str, Page]) -> list[tuple[str, str]]:
    """Greedily, from the best share of keys that name a control downwards; pages and files are used once."""
    shares = [(_share(records, page), path, file) for file, records in files.items() for path, page in pages.items()]
    pairs: list[tuple[str, str]] = []
    for share, path, file in sorted(shares, key=lambda item: (-item[0], item[1], item[2])):
        is_used = any(path == pair[0] or file == pair[1] for pair in pairs)
        if share >= MIN_SHARE and not is_used:
            pairs.append((path, file))
    return pairs


def _share(records: Sequence[Any], page: Page) -> float:
    """Of the keys of the longest record and the fields of the page together: how many belong to each other."""
    keys = max((list(record) for record in records), key=len)
    found = {key: find_controls(key, page) for key in keys}
    fields = {control.field for control in page.controls if control.kind not in ("button", "link")}
    met = {control.field for controls in found.values() for control in controls}
    num_found = sum(bool(controls) for controls in found.values())
    return 2 * num_found / (len(keys) + len(fields) + num_found - len(met)) if keys else 0.0


class PageLinks(HTMLParser):
    """Links of a page to the same host, and whether it has a form to be sent."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.has_form = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        if tag == "form":
            self.has_form = True
        target = dict(attrs).get("href") if tag == "a" else None
        if target:
            parts = urlsplit(urljoin(f"http://here{self.path}", target))
            if parts.netloc == "here" and not re.search(r"\.(css|js|png|jpe?g|svg|pdf|zip|json)$", parts.path):
                self.links.append(parts.path)
