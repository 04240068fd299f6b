"""docs/adding_an_objective.md, followed literally: its files, an entry point, and every command that it gives."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import traceback
from pathlib import Path

import pytest

from tests.packages import write_metadata
from tests.processes import Forked

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


def answer(commands: list[str], file: Path) -> None:
    """Run the commands in this process, and write {command: [exit code, what it showed]}."""
    from experiments.cli.commands import app

    shown = {}
    for command in commands:
        program, *arguments = command.split()
        code, output = 0, io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                if program == "python":
                    runpy.run_path(arguments[0], run_name="__main__")
                else:
                    code = app(arguments, standalone_mode=False) or 0
            except Exception:
                traceback.print_exc()
                code = 1
        shown[command] = [code, output.getvalue()]
    file.write_text(json.dumps(shown))


@pytest.fixture(scope="module")
def answers(package: Path) -> dict[str, tuple[int, str]]:
    """Exit code and output of every command of the page, and of the check of a method with a planted mistake."""
    plant_mistake(package)
    commands, file = [*SHOWN, "python check_broken.py"], package / "answers.json"
    process = Forked(
        answer,
        commands,
        file,
        output=package / "said",
        cwd=package,
        environment={"COLUMNS": "200"},
        paths=[package],
    )
    text = process.end()
    assert process.code == 0, text
    return {command: tuple(found) for command, found in json.loads(file.read_text()).items()}


def plant_mistake(package: Path) -> None:
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
@pytest.mark.parametrize("command", SHOWN)
def test_every_command_does_what_the_page_says(answers: dict[str, tuple[int, str]], command: str) -> None:
    code, shown = answers[command]
    assert code == 0, shown
    for text in SHOWN[command]:
        assert text in shown


def test_the_planted_mistake_is_answered_as_the_page_says(answers: dict[str, tuple[int, str]]) -> None:
    code, shown = answers["python check_broken.py"]
    assert code == 1
    assert "'micro_batches': sum of the micro-batch losses" in shown
