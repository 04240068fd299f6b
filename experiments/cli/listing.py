"""What `dllm-rl list` and `cite` print: registered components with their facts, and BibTeX of those that a run used."""

from __future__ import annotations

import textwrap
from importlib import resources
from typing import Any

import yaml
from rich.console import Console

from dllm_rl import registry
from experiments.design.config import Preset
from experiments.design.presets import load_preset, preset_names
from experiments.run.folder import RunFolder

_FACTS = ("paper", "level", "families")
_GAP = 3
# A summary in fewer columns than these is unreadable.
_SUMMARY_WIDTH = 40


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
    """Print records as a table whose columns are the facts that any of them states, as wide as they need.

    The summary is the last column where there is room for it, else a line of its own below. Nothing is cut.
    """
    console = Console()
    columns = ["name", *(fact for fact in _FACTS if any(fact in entry for entry in found))]
    rows = [columns, *([_cell(name, entry.get(name, "")) for name in columns] for entry in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    summaries = ["summary", *(entry["summary"] for entry in found)]
    room = console.width - sum(widths) - _GAP * len(widths)
    for row, summary in zip(rows, summaries, strict=True):
        facts = (" " * _GAP).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        if room >= _SUMMARY_WIDTH:
            lines = _wrapped(summary, room)
            print(f"{facts}{' ' * _GAP}{lines[0]}".rstrip())
            indent, more = console.width - room, lines[1:]
        else:
            print(facts.rstrip())
            indent, more = 4, _wrapped(summary, console.width - 4)
        for line in more:
            print(" " * indent + line)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def _cell(name: str, value: Any) -> str:
    return _told(value) if name == "families" else str(value)


def _told(families: list[str]) -> str:
    """Families by name, or by those that are missing: whichever is shorter."""
    missing = [name for name in registry.names("policy") if name not in families]
    if not missing:
        return "all"
    return min(", ".join(families), f"all but {', '.join(missing)}", key=len)


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
