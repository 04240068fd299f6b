"""`dllm-rl cite`: BibTeX of exactly the methods that a run used."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml

from dllm_rl import registry
from experiments.design.config import Preset
from experiments.run.folder import RunFolder


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
