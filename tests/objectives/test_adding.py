"""docs/adding_an_objective.md, followed literally: its files, an entry point, and every command that it gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packages import write_metadata

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "adding_an_objective.md").read_text()
FILE = re.compile(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)```", re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, and beside them what `pip install --editable .` would leave: the package's metadata."""
    folder = tmp_path_factory.mktemp("package")
    for name, text in FILE.findall(PAGE):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_metadata(folder / "pyproject.toml", folder)
    return folder


def run(command: str, package: Path) -> str:
    program, *arguments = command.split()
    start = {"dllm-rl": [sys.executable, "-m", "experiments.cli"], "python": [sys.executable]}[program]
    paths = os.pathsep.join([str(package), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, *arguments], cwd=package, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_gives_these_commands() -> None:
    assert ["pip install --editable .", *SHOWN] == COMMANDS


SHOWN = {
    "dllm-rl list objectives": ("gmpo", "2507.20673"),
    "python check.py": ("properties hold on autoregressive, block, flow, masked, slot",),
    "dllm-rl train toy_sort objective=gmpo train.steps=2 evaluation.max_tasks=4": ("masked-gmpo seed 0: done",),
    "dllm-rl grid mine.yaml --dry-run": ("masked-gmpo seed 0", "flow-gmpo seed 0"),
    "dllm-rl cite masked-gmpo": ("objective gmpo", "eprint = {2507.20673}"),
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_command_does_what_the_page_says(package: Path) -> None:
    for command, expected in SHOWN.items():
        shown = run(command, package)
        for text in expected:
            assert text in shown, f"{command}: {shown}"


def test_the_planted_mistake_is_answered_as_the_page_says(package: Path) -> None:
    code = (package / "geometric_mean" / "gmpo.py").read_text()
    reduction = "mean_of_rows(inputs.rollouts, -inputs.advantages * mean.exp())"
    assert reduction in code
    local = "(-inputs.advantages * inputs.rollouts.valid * mean.exp()).sum() / inputs.rollouts.num_rows"
    broken = code.replace(reduction, local)
    (package / "broken.py").write_text(broken.replace('"gmpo"', '"broken_gmpo"').replace("GMPO", "BrokenGMPO"))
    check = (
        "from dllm_rl.testing import check_objective\nfrom broken import BrokenGMPO\ncheck_objective(BrokenGMPO())\n"
    )
    (package / "check_broken.py").write_text(check)
    with pytest.raises(AssertionError, match="'micro_batches': sum of the micro-batch losses"):
        run("python check_broken.py", package)
