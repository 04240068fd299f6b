"""What the pages of docs/ name exists: tests, files of the project, commands with their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from experiments.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist_with_their_options(page: Path) -> None:
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("dllm-rl"):
                parse(shlex.split(line, comments=True)[1:])


def test_messages_of_the_troubleshooting_page_are_said() -> None:
    """Each, in its parts between the dots, stands in the sources, where a literal may be broken over lines."""
    sources = "".join(path.read_text() for name in FOLDERS[:5] for path in sorted((ROOT / name).rglob("*.py")))
    spoken = re.sub(r'"\s+f?"', "", sources)
    rows = re.findall(r"^\| (`.+?) \| ", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    messages = [part.strip() for row in rows for text in re.findall("`([^`]+)`", row) for part in text.split("…")]
    assert len(messages) > 40
    assert [part for part in messages if part not in spoken] == []


def test_pre_commit_and_make_check_run_the_same() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (target,) = re.findall(r"^check: .*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    made = [line.strip().removeprefix("$(BIN)/").removesuffix(" .") for line in target.splitlines()]
    assert [hook["entry"].removesuffix(" --force-exclude") for hook in hooks] == made


def parse(words: list[str]) -> None:
    """Parse the words of a command without running it. Raises a UsageError or a KeyError for what does not exist."""
    command: Any = get_command(app)
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("dllm-rl", words)


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
