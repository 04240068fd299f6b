"""Every command of README, Start and How-to runs: here at its smallest, or where `ELSEWHERE` says, but for `NOT_RUN`.

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
# Commands by how they begin, with the file of tests that runs them, or calls what they call, and the text that does so.
ELSEWHERE = {
    "doctor": ("experiments/cli/test_doctor.py", '"experiments.cli", "doctor"'),
    "new": ("experiments/cli/test_new.py", '"new", kind'),
    "replay": ("experiments/cli/test_replay.py", "replay_rollout("),
    "serve": ("experiments/report/test_watch_serve.py", "make_app(grid"),
    "sites serve": ("harness/sites/test_public_sites.py", "sites.server.start()"),
    "sites formfactory": ("harness/environments/test_formfactory.py", "make_catalogue("),
    "site ": ("test_guides.py", '"site", "try", "workshop"'),
    "judge": ("test_guides.py", "^dllm-rl (judge"),
    "train toy_sort objective=gmpo": ("objectives/test_adding.py", "dllm-rl train toy_sort objective=gmpo"),
    "cite ci": ("experiments/cli/test_cite.py", "cite"),
    "cite masked-gmpo": ("objectives/test_adding.py", "dllm-rl cite masked-gmpo"),
    "grid doors.yaml": ("test_third_party.py", '"grid", "doors.yaml"'),
    "grid workshop.yaml": ("test_guides.py", '"grid", "workshop.yaml"'),
    "grid grid16 --executor": ("experiments/run/test_ray.py", '"--executor", "ray"'),
    "grid ablation_masks --reuse": ("experiments/run/test_reuse.py", '"--reuse"'),
}
# Commands that no test runs, with what they would take.
NOT_RUN = {
    "eval GSAI-ML/": "the hub and a GPU",
    "eval runs/": "a checkpoint of the reader's, or half an hour of training",
    "film runs/mine/": "a checkpoint of the reader's",
    "grid llada_8b_lora policies.llada.checkpoint": "a GPU",
    "eval builtin:masked --environment {name: site": "the reader's site",
    "eval builtin:masked_finish --split": "600 plans in the browser",
    "eval builtin:autoregressive_finish --split": "100 plans in the browser",
    "warmstart": "minutes to hours of training",
    "train quick autoregressive grpo reward": "a judge's endpoint",
    "train toy_sort my_method": "the reader's method",
    "train toy_sort objective=espo": "a minute of training",
    "train toy_copy objective=": "a minute of training",
    "diagnose runs/workshop": "the run of the command before",
    "sites openenv": "a package of another environment",
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


def is_exception(words: tuple[str, ...]) -> bool:
    """Whether this command is not run here."""
    return " ".join(words).startswith((*ELSEWHERE, *NOT_RUN))


SHOWN = sorted({words for page in pages() for words in commands(page) if words and not is_exception(words)})


@pytest.mark.parametrize("start", [*ELSEWHERE, *NOT_RUN])
def test_every_exception_is_on_a_page(start: str) -> None:
    assert any(" ".join(words).startswith(start) for page in pages() for words in commands(page))


@pytest.mark.parametrize("start", ELSEWHERE)
def test_a_command_that_is_run_elsewhere_is_run_there(start: str) -> None:
    file, call = ELSEWHERE[start]
    assert call in (ROOT / "tests" / file).read_text()


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
    elif words[0] == "eval":
        given += ["--max-tasks", "1"]
    if words[0] == "unpack":
        given[1] = next(path.name for path in place.glob("*.tar.xz"))
    more = [option for option in SMALL.get(words[0], ()) if option not in words]
    code, shown, errors = said((*given, *more), monkeypatch, capsys)
    assert code == 0, errors
    assert shown.strip()
