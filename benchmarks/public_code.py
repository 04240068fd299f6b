"""Public code in a user's own checkouts: where it stands, and the text of a few of its functions, run with stand-ins.

A function is taken out of its file by its name and compiled alone, so that none of what its file imports is needed.
"""

from __future__ import annotations
import __future__

import argparse
import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dllm_rl.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Public code: the folder of its checkout, where it can be had, and its file."""

    folder: str
    url: str
    file: str


def place(folder: Path, code: Code) -> Path:
    """The file in the user's checkout, whose package may stand in a folder of its name (or under src)."""
    for inside in ("", code.folder, f"src/{code.folder}"):
        path = folder / code.folder / inside / code.file
        if path.is_file():
            return path
    return folder / code.folder / code.file


def missing(codes: Iterable[Code], folder: Path | None) -> list[str]:
    """What cannot be compared, and where it can be had."""
    found = {}
    for code in codes:
        if folder is None or not place(folder, code).is_file():
            found[code.folder] = f"{code.folder}: {code.url}"
    return list(found.values())


def functions(path: Path, names: Sequence[str], known: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """Functions of a file by name, methods too; the first of each name. Raises ConfigError where one is not there.

    Args:
        known: What they find under their global names.
    """
    found: dict[str, ast.stmt] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name in names and node.name not in found:
            node.decorator_list = []
            found[node.name] = node
    lacking = [name for name in names if name not in found]
    if lacking:
        raise ConfigError(f"{path} has no function {', '.join(lacking)}. Compare with a version that has it.")
    module = ast.Module(body=list(found.values()), type_ignores=[])
    space = dict(known)
    flags = __future__.annotations.compiler_flag
    exec(compile(module, str(path), "exec", flags=flags, dont_inherit=True), space)
    return {name: space[name] for name in names}


def markers(module: str) -> tuple[str, str]:
    """The two lines of a page between which the table of a command stands."""
    return f"<!-- table of python -m {module} -->", "<!-- end of table -->"


def command(about: str, codes: Iterable[Code], table: Callable[[Path], list[str]], markers: tuple[str, str]) -> None:
    """Read the user's folder from the command line, say what it lacks, and print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="your checkouts")
    parser.add_argument("--page", type=Path, help="write the table into this page, between its markers")
    given = parser.parse_args()
    if absent := missing(codes, given.folder):
        where = "a folder" if given.folder is None else given.folder
        print(f"To be compared, {where} needs checkouts of:", *absent, sep="\n  ")
    if given.folder is None:
        raise SystemExit(2)
    lines = table(given.folder)
    if len(lines) == 2:
        raise ConfigError(f"{given.folder} holds none of these. Clone some of them into it, under these names.")
    print("\n".join(lines))
    if given.page is not None:
        write_between(given.page, lines, markers)
        print(f"wrote {given.page}")


def write_between(page: Path, lines: list[str], markers: tuple[str, str]) -> None:
    """Replace what stands between the page's two markers."""
    begin, end = markers
    text = page.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ConfigError(f"{page} lacks the lines {begin} and {end}, between which the table goes. Add them.")
    before, rest = text.split(begin)
    page.write_text("\n".join([f"{before}{begin}", "", *lines, "", end + rest.split(end)[1]]))
