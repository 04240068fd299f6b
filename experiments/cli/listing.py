"""What `dllm-rl list` and `cite` print: registered components with their facts, and BibTeX of those that a run used."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from dllm_rl import registry
from experiments.design.config import Preset
from experiments.design.presets import load_preset, preset_names
from experiments.run.folder import RunFolder

_FACTS = ("paper", "level", "families")


def entries(kind: str) -> list[dict[str, Any]]:
    """One record a name: name, first line of the documentation, and the stated facts."""
    if kind == "preset":
        return [{"name": name, "summary": load_preset(name).description} for name in preset_names()]
    return [_entry(name, cls) for name, cls in registry.items(kind)]


def broken(kind: str) -> dict[str, str]:
    """What installed packages announce and cannot deliver, with the reason."""
    return {} if kind == "preset" else registry.broken(kind)


def _entry(name: str, cls: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": name, "summary": _summary(cls), "module": cls.__module__}
    for fact in _FACTS:
        value = getattr(cls, fact, None)
        if fact == "families" and value is not None:
            entry[fact] = list(registry.families_of(cls))
        elif isinstance(value, str) and value:
            entry[fact] = value
    return entry


def _summary(cls: Any) -> str:
    return (cls.__doc__ or "").strip().split("\n")[0].split(". ")[0].split(": ")[0].rstrip(".")


def print_entries(found: list[dict[str, Any]]) -> None:
    """Print records as a table whose columns are the facts that any of them states. Names are never cut or wrapped."""
    columns = ["name", *(fact for fact in _FACTS if any(fact in entry for entry in found)), "summary"]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "name", overflow="fold")
    for entry in found:
        table.add_row(*(_cell(entry.get(column, "")) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def bibliography(run: RunFolder) -> str:
    """BibTeX of the papers that the run's objectives and samplers name, each once, with what cites it as a comment."""
    settings = Preset.model_validate(run.config.settings)
    controls = [control.objective for _, control in settings.controls.by_role()]
    levels = {**settings.control_objectives, **settings.objectives}
    used = [("objective", levels[name].name) for name in dict.fromkeys([*settings.objectives, *controls])]
    used += [("sampler", level.sampler.name) for level in settings.policies.values()]
    cited: dict[str, list[str]] = {}
    for kind, name in dict.fromkeys(used):
        for paper in papers_of(registry.get(kind, name)):
            cited.setdefault(paper, []).append(f"{kind} {name}")
    return "\n\n".join(entry(paper, names) for paper, names in sorted(cited.items())) + "\n"


def papers_of(cls: Any) -> list[str]:
    """The arXiv ids that a registered class names in `paper`; plug-ins may name none."""
    return [paper for paper in str(getattr(cls, "paper", "")).replace(",", " ").split() if paper]


def entry(paper: str, cited_by: list[str]) -> str:
    """One entry. A paper that we hold no title of has its number and nothing invented."""
    known = yaml.load((resources.files("experiments.cli") / "papers.yaml").read_text(), Loader=yaml.BaseLoader)
    fields = {"eprint": paper, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{paper}"}
    if paper[:4].isdigit():
        fields["year"] = f"20{paper[:2]}"
    if paper in known:
        author = known[paper]["author"]
        fields = {"title": "{" + known[paper]["title"] + "}", "author": f"{author} and others", **fields}
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"% {', '.join(cited_by)}\n@misc{{arxiv:{paper},\n{body}\n}}"
