"""What the pages of docs/ name exists: tests, files, commands with their options, names of Python, settings."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import dllm_rl
from dllm_rl import registry
from experiments.cli import app
from experiments.design.config import ObjectiveLevel, Preset
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset, preset_names
from experiments.run.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
FOLDERS = ("dllm_rl", "objectives", "samplers", "harness", "experiments", "tests", "scripts", "benchmarks", "studies")


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
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            if line.startswith("dllm-rl"):
                words = shlex.split(line, comments=True)[1:]
                parse(words)
                if words[:1] == ["grid"] and words[1] in preset_names():
                    build_cells(load_preset(words[1], [word for word in words[2:] if "=" in word.split("[")[0]]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_other_commands_that_are_shown_exist(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for block in blocks(page, "sh"):
        for name in re.findall(r"^make (\w+)", block, re.MULTILINE):
            assert name in targets, f"{page.name} shows make {name}"
        for name in re.findall(r"^python -m ([\w.]+)", block, re.MULTILINE):
            assert importlib.util.find_spec(name), f"{page.name} shows python -m {name}"
        for name in re.findall(r"dllm-rl\[(\w+)\]", block):
            assert name in extras, f"{page.name} names the extra {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_is_shown_parses_and_imports_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        tree = ast.parse(block)
        for module, name in imported(tree):
            if module.split(".")[0] in FOLDERS:
                found = importlib.import_module(module)
                assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), f"{page.name}: {name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dllm_rl":
                assert node.attr in dllm_rl.__all__, f"{page.name} uses dllm_rl.{node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_that_are_shown_are_known(page: Path, tmp_path: Path) -> None:
    """A preset or a recipe is read as one; of a part of one, the keys exist."""
    for number, block in enumerate(blocks(page, "yaml")):
        shown, file = yaml.safe_load(block), tmp_path / f"shown{number}.yaml"
        file.write_text(block)
        if "families" in shown:
            load_recipe(str(file))
        elif "base" in shown or {"policies", "objectives", "train"} <= set(shown):
            build_what_is_here(load_preset(str(file)))
        else:
            assert set(shown) <= {*Preset.model_fields, *Recipe.model_fields}, f"{page.name}: {block}"
    for block in blocks(page, "json"):
        for line in block.splitlines():
            json.loads(line)
    for block in blocks(page, "toml"):
        tomllib.loads(block)


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "results").rglob("*.md")), ids=lambda page: page.name)
def test_results_say_when_and_by_which_command(page: Path) -> None:
    text = " ".join(page.read_text().split())
    assert re.search(r"\b20\d\d-\d\d-\d\d\b|\b\d+ [A-Z][a-z]+ 20\d\d\b", text), "when was it measured?"
    assert re.search(r"\bdllm-rl \w|\bpython -m \w|\bmake \w", text), "by which command?"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_guides_carry_no_dates(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]+`|\]\([^)]+\)", "", page.read_text(), flags=re.DOTALL)
    assert not re.findall(r"\b20\d\d-\d\d-\d\d\b|\b\d+ (?:January|February|November|December) 20\d\d\b", text)


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


def build_what_is_here(preset: Preset) -> None:
    """Build the cells, with GRPO for an objective that the page lets one write; none without their checkpoint."""
    known, grpo = registry.names("objective"), ObjectiveLevel(name="grpo")
    objectives = {name: level if level.name in known else grpo for name, level in preset.objectives.items()}
    is_made_first = any(level.checkpoint.startswith("runs/") for level in preset.policies.values())
    if not is_made_first and preset.environment.name in registry.names("environment"):
        build_cells(preset.model_copy(update={"objectives": objectives}))


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Modules with the names that are imported from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


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
