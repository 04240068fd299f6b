"""The command line answers fast, lists what is registered, and answers a mistake with one message and exit code 2."""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.cli.entry import CONTINUING, ENDLESS, ExitCode, farewell
from experiments.run.runner import begin
from tests.experiments.grids import plan


def dllm_rl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def said(arguments: tuple[str, ...], monkeypatch, capsys) -> tuple[int, str, str]:
    """Exit code, output and errors of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["dllm-rl", *arguments])
    monkeypatch.setattr("signal.signal", lambda *handler: None)
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), *capsys.readouterr()


def test_help_is_fast_and_loads_nothing_heavy() -> None:
    # Processor time, so that other work on this machine does not decide.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert dllm_rl("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.5
    heavy = "'torch', 'pydantic', 'playwright', 'pyarrow'"
    script = f"import sys, experiments.cli; print([name for name in ({heavy}) if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("grid quick --workers 2", "interrupted. The same command continues where it stopped."),
        ("train toy_sort masked grpo", "interrupted. The same command continues where it stopped."),
        ("warmstart", "interrupted. The same command continues where it stopped."),
        ("eval masked", "interrupted. The same command begins anew."),
        ("sites formfactory checkout", "interrupted. The same command begins anew."),
        ("site try folder", "interrupted. The same command begins anew."),
        ("judge train labels.jsonl", "interrupted. The same command begins anew."),
        ("sites openenv --port 0", "stopped."),
        ("sites serve", "stopped."),
        ("serve runs", "stopped."),
        ("watch quick", "stopped."),
    ],
)
def test_an_interrupted_command_says_what_the_same_command_would_do(words: str, says: str) -> None:
    assert farewell(words.split()) == says


@pytest.mark.parametrize("path", [*CONTINUING, *ENDLESS])
def test_commands_that_are_told_apart_by_their_end_are_there(path: tuple[str, ...], monkeypatch, capsys) -> None:
    code, shown, _ = said((*path, "--help"), monkeypatch, capsys)
    assert (code, " ".join(path) in shown) == (0, True)


HEAVY = ("torch", "transformers", "accelerate", "peft", "scipy.stats", "playwright", "harness")


@pytest.mark.parametrize("command", [("status",), ("watch", "--once")], ids=["status", "watch"])
def test_who_only_reads_a_run_loads_nothing_heavy(tmp_path, command: tuple[str, ...]) -> None:
    begin(plan(tmp_path))
    assert loaded_by(command[0], str(tmp_path / "run"), *command[1:]) == []


def test_a_dry_run_loads_what_resolves_a_preset_and_nothing_that_trains(tmp_path) -> None:
    loaded = loaded_by("grid", "quick", "--dry-run", "--out", str(tmp_path))
    assert not {"transformers", "peft", "scipy.stats"} & set(loaded)


def loaded_by(*arguments: str) -> list[str]:
    """Which of the heavy modules a command imports."""
    script = f"""
import sys
sys.argv = ["dllm-rl", *{arguments!r}]
from experiments.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["objectives", "samplers", "environments", "rewards", "policies", "presets"])
def test_list_speaks_json(kind: str, monkeypatch, capsys) -> None:
    found = json.loads(said(("list", kind, "--json"), monkeypatch, capsys)[1])
    wanted = {
        "objectives": {"grpo", "cj_grpo", "gspo", "espo"},
        "samplers": {"ar", "low_confidence", "slots", "flow_exact"},
        "environments": {"forms"},
        "rewards": {"outcome", "shaped", "tree"},
        "policies": {"autoregressive", "masked", "block", "slot", "flow"},
        "presets": {"quick", "ci", "grid16", "positive_control"},
    }
    assert wanted[kind] <= {entry["name"] for entry in found}
    assert all(entry["summary"] for entry in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("grid", "quik"), "Did you mean 'quick'"),
        (("grid", "quick", "trian.steps=1"), "Did you mean 'train'"),
        (("grid", "--nope"), "No such option"),
        (("grid", "quick", "environment.options.size=huge"), "size='huge' was given; it should be 'small' or 'full'"),
        (("grid", "toy_copy", "reward.options.submission=a"), "submission='a' was given; it should be a valid number"),
        (("grid", "toy_copy", "policies.masked.sampler.options.num_steps=two"), "num_steps='two' was given"),
        (("list", "objctives"), "Did you mean 'objectives'"),
        (("grid", "toy_copy", "--out", __file__), "cannot be the folder of a run"),
        (("status", "nowhere"), "is not a run folder"),
        (("watch", "nowhere"), "is not a run folder"),
        (("diagnose", "nowhere"), "no file or folder 'nowhere'"),
        (("new", "objective", "Not-A-Name"), "use snake_case"),
        (("sites", "formfactory", "nowhere"), "no app.py in 'nowhere'"),
        (("sites", "serve", "--world", "ritch"), "Did you mean 'rich'"),
        (("sites", "serve", "--difficulty", "2"), "has no difficulties"),
    ],
)
def test_a_mistake_is_one_message(arguments: tuple[str, ...], message: str, monkeypatch, capsys) -> None:
    code, _, errors = said(arguments, monkeypatch, capsys)
    assert code == 2
    assert message in errors


def test_the_command_alone_shows_the_five_to_begin_with(monkeypatch, capsys) -> None:
    code, shown, _ = said((), monkeypatch, capsys)
    lines = [line for line in shown.splitlines() if line.startswith("  dllm-rl ")]
    assert (code, len(lines)) == (0, 5)
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("kind", ["objectives", "samplers", "environments", "rewards", "policies", "presets"])
def test_names_in_lists_are_never_cut(kind: str, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [entry["name"] for entry in json.loads(said(("list", kind, "--json"), monkeypatch, capsys)[1])]
    shown = said(("list", kind), monkeypatch, capsys)[1].splitlines()
    first = [line.split()[0] for line in shown if line[:1].strip()]
    assert set(names) <= set(first)
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize("width", [80, 160])
def test_lists_break_no_word_and_say_the_whole_summary(width: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    entries = json.loads(said(("list", "objectives", "--json"), monkeypatch, capsys)[1])
    words = said(("list", "objectives"), monkeypatch, capsys)[1].split()
    assert {word for entry in entries for word in entry["summary"].split()} <= set(words)
    assert any(entry["families"] == ["block"] for entry in entries) and "all" in words and "block" in words


@pytest.mark.parametrize(
    ("words", "expected"),
    [("grid qui", "quick"), ("list obj", "objectives"), ("report gr", "grid_of_mine"), ("gri", "grid")],
)
def test_the_shell_completes_commands_presets_kinds_and_runs(words: str, expected: str, tmp_path, monkeypatch) -> None:
    begin(plan(tmp_path))
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs" / "grid_of_mine")
    names = {
        "_DLLM_RL_COMPLETE": "complete_bash",
        "COMP_WORDS": f"dllm-rl {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", "import sys; sys.argv = ['dllm-rl']; from experiments.cli import main; main()"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **names, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert expected in done.stdout.split()


def test_the_page_of_the_command_line_has_every_exit_code() -> None:
    page = Path(__file__).parents[3] / "docs" / "command_line.md"
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page.read_text(), re.MULTILINE)
    assert rows == [(str(code.value), code.name) for code in ExitCode]


def test_the_exit_code_reaches_the_shell() -> None:
    done = dllm_rl("grid", "quik")
    assert done.returncode == 2 and "Did you mean 'quick'" in done.stderr and "Traceback" not in done.stderr
