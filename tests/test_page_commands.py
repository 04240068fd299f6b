"""Every command of README, Start and How-to runs: here at its smallest, or where `ELSEWHERE` says.

What a grid would train is resolved by `--dry-run`; training takes one step of a toy; an evaluation takes one task.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from experiments.report import write_report
from tests.experiments.cli.test_cli import said
from tests.experiments.synthetic import metrics_of, write_run
from tests.test_docs import blocks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SMALL = {
    "grid": ("--dry-run", "--out", "elsewhere"),
    "train": ("train.steps=1", "train.prompts_per_step=1", "train.group_size=2", "evaluation.max_tasks=1"),
    "watch": ("--once",),
    "unpack": ("--out", "unpacked"),
}
# Commands by how they begin, with the file of tests that runs them: with what they need, or to the end.
ELSEWHERE = {
    "doctor": "experiments/cli/test_doctor.py",
    "new": "experiments/cli/test_new.py",
    "replay": "experiments/cli/test_replay.py",
    "serve": "experiments/report/test_watch_serve.py",
    "sites serve": "harness/sites/test_public_sites.py",
    "sites formfactory": "harness/environments/test_formfactory.py",
    "site": "test_guides.py",
    "judge": "test_guides.py",
    "eval builtin:masked_finish --split": "test_guides.py",
    "eval builtin:autoregressive_finish --split": "test_guides.py",
    "eval builtin:masked --environment {name: site": "experiments/cli/test_site.py",
    "eval oracle --environment {name: forms, options: {design": "harness/environments/test_newer_design.py",
    "eval oracle --environment {name: forms, options: {world": "harness/environments/test_rich_world.py",
    "eval runs/": "experiments/run/test_own_warmstart.py",
    "eval GSAI-ML/": "experiments/run/test_own_checkpoint.py",
    "film runs/mine/": "experiments/run/test_own_checkpoint.py",
    "warmstart": "experiments/run/test_recipe.py",
    "train quick autoregressive grpo reward": "test_guides.py",
    "train toy_sort objective=espo": "studies/test_lab.py",
    "train toy_copy objective=": "studies/test_lab.py",
    "train toy_sort my_method": "experiments/cli/test_new.py",
    "train toy_sort objective=gmpo": "objectives/test_adding.py",
    "cite ci": "experiments/cli/test_cite.py",
    "cite masked-gmpo": "objectives/test_adding.py",
    "grid doors.yaml": "test_third_party.py",
    "grid workshop.yaml": "test_guides.py",
    "grid grid16 --executor": "experiments/run/test_ray.py",
    "grid ablation_masks --reuse": "experiments/run/test_reuse.py",
    "grid llada_8b_lora policies.llada.checkpoint": "experiments/run/test_own_warmstart.py",
    "diagnose runs/workshop": "test_guides.py",
}


def pages() -> list[Path]:
    """README, and the pages that the index has under Start and How-to."""
    index = (DOCS / "README.md").read_text()
    listed = re.findall(r"^## (?:Start|How-to)\n(.*?)(?=^## )", index, re.MULTILINE | re.DOTALL)
    names = re.findall(r"\]\((\w+\.md)", "".join(listed))
    return [ROOT / "README.md", *(DOCS / name for name in dict.fromkeys(names))]


def commands(page: Path) -> list[tuple[str, ...]]:
    """The words of each `dllm-rl` command that a page shows."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [tuple(shlex.split(line, comments=True)[1:]) for line in lines if line.startswith("dllm-rl")]


def elsewhere(words: tuple[str, ...]) -> str | None:
    """The file of tests that runs this command, where it is not run here."""
    return next((file for start, file in ELSEWHERE.items() if " ".join(words).startswith(start)), None)


SHOWN = sorted({words for page in pages() for words in commands(page) if words and elsewhere(words) is None})


def test_every_exception_is_on_a_page_and_has_its_tests() -> None:
    shown = {" ".join(words) for page in pages() for words in commands(page)}
    for start, file in ELSEWHERE.items():
        assert any(text.startswith(start) for text in shown), f"no page shows {start}"
        assert (ROOT / "tests" / file).is_file(), f"{start}: no {file}"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the pages have by then: finished runs, logs of another trainer, presets that a page wrote."""
    folder = tmp_path_factory.mktemp("place")
    quick = write_run(folder / "runs" / "quick", preset="quick", seeds=(0,), num_steps=4, num_tasks=4)
    write_report(quick)
    for name in ("ci", "grid16"):
        shutil.copytree(quick, folder / "runs" / name)
    (cell,) = [path for path in (quick / "cells").iterdir() if path.name.startswith("masked-grpo-")]
    cell.rename(cell.with_name("masked-grpo-0c1d2e3f4a"))
    history = [{"step": step, **row} for step, row in enumerate(metrics_of("healthy", 40), 1)]
    for name in ("out", "outputs"):
        (folder / name).mkdir()
        (folder / name / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (folder / "train.log").write_text("\n".join(map(str, history)))
    mine = yaml.safe_load(blocks(DOCS / "your_checkpoint.md", "yaml")[0])
    level = {"checkpoint": "builtin:masked", "sampler": mine["policies"]["mine"]["sampler"]}
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine | {"policies": mine["policies"] | {"mine": level}}))
    study = yaml.safe_load(blocks(DOCS / "presets.md", "yaml")[-1])
    study["objectives"]["mine"]["name"] = "grpo"
    (folder / "my_study.yaml").write_text(yaml.safe_dump(study))
    return folder


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_a_command_of_a_page_runs(words: tuple[str, ...], place: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(place)
    given = [word.replace("device=cuda", "device=cpu") for word in words]
    if "--max-tasks" in words:
        given[words.index("--max-tasks") + 1] = "1"
    if words[0] == "unpack":
        given[1] = next(path.name for path in place.glob("*.tar.xz"))
    more = [option for option in SMALL.get(words[0], ()) if option not in words]
    code, shown, errors = said((*given, *more), monkeypatch, capsys)
    assert code == 0, errors
    assert shown.strip()
