"""Hooks of the documentation site: navigation from the index page, and the pages that are generated.

The index, docs/README.md, is the one list of pages. Pages of the repository's root stand under `project/`, notebooks as
pages beside their files, the API and the command line under `reference/`.
"""

from __future__ import annotations

import ast
import base64
import functools
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "docs" / "notebooks"
PACKAGES = ("dllm_rl", "objectives", "samplers", "harness", "experiments")
# Files of the root of the repository, which the site has under project/.
PROJECT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff")
COMMAND_LINE = "reference/command_line.md"
_DEFINED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^):#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Navigation: the sections of the index with their pages, each once, and the generated reference."""
    index = (Path(config.docs_dir) / "README.md").read_text(encoding="utf-8")
    sections = {title: _pages(text) for title, text in _SECTION.findall(index)}
    sections["Reference"] += [COMMAND_LINE, {"API": [_api_page(package) for package in _all_packages()]}]
    sections["Project"] = [f"project/{name}" for name in PROJECT if name.endswith(".md") and name != "README.md"]
    config.nav = [{"Home": "README.md"}, *({title: pages} for title, pages in sections.items())]
    return config


def _pages(text: str) -> list[Any]:
    """Pages that a section of the index links to, in order."""
    found = [_within_site(path, "README.md") for path, _ in _LINK.findall(text)]
    return [path for path in dict.fromkeys(found) if path.endswith(".md")]


def _within_site(path: str, page: str) -> str:
    """Where a link to `path` on a page leads to in the site, as a path below docs/."""
    folder = ROOT if page.startswith("project/") else (ROOT / "docs" / page).parent
    target = (folder / path).resolve().relative_to(ROOT)
    if target.parts[0] != "docs":
        return f"project/{target}"
    below = Path(*target.parts[1:])
    return str(below.with_suffix(".md") if below.suffix == ".ipynb" else below)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository's root, the notebooks, every package, and the command line."""
    for name in PROJECT:
        files.append(File.generated(config, f"project/{name}", abs_src_path=str(ROOT / name)))
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, images = notebook_page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, image in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=image))
    for package, modules in _all_packages().items():
        files.append(File.generated(config, _api_page(package), content=_api_text(package, modules)))
    files.append(File.generated(config, COMMAND_LINE, content=_command_line()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links that are right in the repository right in the site."""
    here = page.file.src_uri
    if here.startswith("reference/"):
        return markdown

    def within(match: re.Match[str]) -> str:
        up = "../" * (len(Path(here).parts) - 1)
        return f"]({up}{_within_site(match[1], here)}{match[2] or ''})"

    return _LINK.sub(within, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A corner of a table without text heads nothing."""
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, with what its cells showed, and its images by name."""
    parts, images = [], {}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{path.stem}-{number}.png"
                images[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell above draws]({name})")
            elif "text/html" in data:
                parts.append("".join(data["text/html"]))
            else:
                parts.append("```text\n" + "".join(data["text/plain"]).rstrip() + "\n```")
    parts.append(f'<p><a href="{path.name}" download>This page as a notebook</a></p>')
    return "\n\n".join(parts) + "\n", images


def _api_page(package: str) -> str:
    return f"reference/api/{package}.md"


def _api_text(package: str, modules: list[str]) -> str:
    """The page of a package: what it offers, by links, then its modules one after another.

    A name that a package takes from elsewhere stands where it is defined, and nowhere else.
    """
    tree = _tree(package)
    own = [node.name for node in tree.body if isinstance(node, _DEFINED) and node.name[0] != "_"]
    offered = {name: _definition(package, name) for name in _imported(tree) if name[0] != "_"}
    # Constants and types of options have no entry of their own.
    links = [f"[`{name}`][{home}]" if home else f"`{name}`" for name, home in sorted(offered.items())]
    parts = [f"# {package}", f"::: {package}\n    options: {{members: {json.dumps(own)}}}"]
    parts += [f"Its public names: {', '.join(links)}."] if links else []
    return "\n\n".join([*parts, *(f"::: {module}" for module in modules)]) + "\n"


def _definition(module: str, name: str) -> str | None:
    """Path of the function or class that a name of a module is, wherever it was imported from."""
    tree = _tree(module)
    if any(isinstance(node, _DEFINED) and node.name == name for node in tree.body):
        return f"{module}.{name}"
    home = _imported(tree).get(name)
    return _definition(home, name) if home else None


def _imported(tree: ast.Module) -> dict[str, str]:
    """Names that a module imports from our packages, with the modules that it takes them from."""
    return {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES
        for alias in node.names
        if not _file(f"{node.module}.{alias.name}").is_file()
    }


def _file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_name(f"{path.name}.py")


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text(encoding="utf-8"))


def _all_packages() -> dict[str, list[str]]:
    """Public packages with their public modules, from the file tree: nothing is imported."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for name in (package, *_subpackages(package)):
            folder = ROOT.joinpath(*name.split("."))
            modules = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
            found[name] = [f"{name}.{module}" for module in modules]
    return found


def _subpackages(package: str) -> Iterator[str]:
    folder = str(ROOT.joinpath(*package.split(".")))
    for module in pkgutil.iter_modules([folder], f"{package}."):
        if module.ispkg and not module.name.rpartition(".")[2].startswith("_"):
            yield module.name
            yield from _subpackages(module.name)


def _command_line() -> str:
    """Every command with its arguments and options, as typer documents them."""
    sys.path.insert(0, str(ROOT))
    import typer
    from typer.cli import get_docs_for_click

    command = typer.main.get_command(import_module("experiments.cli").app)
    context = typer.Context(command, info_name="dllm-rl")
    return get_docs_for_click(obj=command, ctx=context, name="dllm-rl", title="All commands")
