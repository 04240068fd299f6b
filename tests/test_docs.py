"""What the pages of docs/ name exists: tests, and files of the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FOLDERS = ("dllm_rl", "objectives", "samplers", "harness", "experiments", "tests", "scripts")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_exist(page: Path) -> None:
    """`file.py::test_name`, also with the name cut by three dots at one end."""
    for file, dots, name, cut in re.findall(r"([\w/]+\.py)::(\.{3})?(\w+)(\.{3})?", page.read_text()):
        (found,) = [path for path in ROOT.glob("tests/**/*.py") if str(path).endswith("/" + file)]
        before, after = (r"\w*" if part else "" for part in (dots, cut))
        assert re.search(rf"^def {before}{name}{after}\(", found.read_text(), re.MULTILINE), f"{file} has no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_by_their_path_exist(page: Path) -> None:
    for name in re.findall(r"`([\w/]+/[\w.]+\.(?:py|md|yaml|json))`", page.read_text()):
        if name.split("/")[0] in FOLDERS:
            assert (ROOT / name).is_file(), f"{page.name} names {name}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, heading = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {path}, which does not exist"
        assert not heading or heading in headings(file), f"{page.name} links to {target}, which has no such heading"


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
