"""What pages show beside commands of our own: Python runs, and lines for other programs are such as these accept.

Commands of our own in running text are parsed, too. Those in blocks are run by `test_page_commands.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

import dllm_rl
from dllm_rl import registry
from dllm_rl.policies.loading import load_policy, save_policy
from dllm_rl.testing import check_reward
from experiments.cli import app
from experiments.cli.new import write_template
from harness.sites import make_tasks
from harness.sites.public_sites import PublicSites
from scripts import install_chromium
from tests.harness.sites.test_public_sites import ask
from tests.test_docs import FOLDERS, PAGES, ROOT, blocks, parse
from tests.test_page_commands import DOCS, pages
from tests.tiny_policies import make_tiny_policy

GUIDES = [page for page in PAGES if "results" not in page.parts]
LINES = sorted({line for page in GUIDES for block in blocks(page, "sh") for line in block.splitlines() if line.strip()})
# Words of running text that stand for something.
PLACEHOLDER = re.compile(r"[A-Z_]{3,}")


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def checks_options_of_a_module(words: list[str]) -> None:
    """`python -m MODULE`: it is here, and declares the options that are shown, by itself or in what it imports."""
    name, options = words[2], [word for word in words[3:] if word.startswith("--")]
    found = importlib.util.find_spec(name)
    assert found and found.origin, f"no module {name}"
    folder, text = Path(found.origin).parent, Path(found.origin).read_text()
    is_package = Path(found.origin).name == "__init__.py"
    imported = [file for file in folder.glob("*.py") if re.search(rf"^(?:from|import) .*\b{file.stem}\b", text, re.M)]
    declared = "".join(file.read_text() for file in (folder.glob("*.py") if is_package else imported)) + text
    for option in options:
        plain = option.removeprefix("--").removeprefix("no-").replace("-", "_")
        assert f'"{option}"' in declared or re.search(rf"\b{plain}: Annotated\[", declared), f"{name} has no {option}"


def runs_in_python(words: list[str]) -> None:
    """Modules are checked for their options; a script is one that a page shows, whose test runs it."""
    if words[1] == "-m" and words[2] not in ("playwright", "pytest"):
        checks_options_of_a_module(words)
    elif words[1] == "-m":
        assert importlib.util.find_spec(words[2])
    else:
        assert any(f"`{words[1]}`:" in page.read_text() for page in PAGES), f"no page shows {words[1]}"


def is_launched(words: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    given = launch_command_parser().parse_args(words[2:])
    assert (words[1], given.module, given.training_script) == ("launch", True, "experiments.cli")
    parse(list(given.training_script_args))


def is_known_to_ray(words: list[str]) -> None:
    pytest.importorskip("ray")
    from ray.scripts.scripts import cli

    cli.commands[words[1]].make_context("ray", words[2:])


def is_installed_by_pip(words: list[str]) -> None:
    """A wheel of this version, this checkout, or our name with extras (which `test_docs.py` looks up)."""
    (what,) = [word for word in words[2:] if not word.startswith("-")]
    assert what in (".", f"dllm_rl-{dllm_rl.__version__}-py3-none-any.whl") or re.match(r"(dllm-rl|\.)\[\w+\]$", what)


def is_a_package_that_we_ask_for(words: list[str]) -> None:
    programs = {"make", "python3-venv", *install_chromium.MANAGERS["apt-get"][1], install_chromium.LIBATOMIC["apt-get"]}
    assert words[1:3] == ["apt-get", "install"] and set(words[3:]) <= programs


def is_a_target(words: list[str]) -> None:
    assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


PROGRAMS: dict[str, Callable[[list[str]], object]] = {
    "accelerate": is_launched,
    "make": is_a_target,
    "pip": is_installed_by_pip,
    "python": runs_in_python,
    "ray": is_known_to_ray,
    "source": lambda words: words == ["source", ".venv/bin/activate"],
    "sudo": is_a_package_that_we_ask_for,
}


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith(("dllm-rl", "curl"))])
def test_a_line_for_another_program_is_one_that_it_accepts(line: str) -> None:
    words = words_of(line)
    while words and (variable := re.match(r"([A-Z_]+)=", words[0])):
        sources = (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
        # Those of `tests/soak_sizes.py` are named there without what they begin with.
        name = variable[1].removeprefix("DLLM_RL_SOAK_")
        assert any(f'"{name}"' in file.read_text() for file in sources), f"nothing reads {variable[1]}"
        del words[0]
    if words:
        assert words[0] in PROGRAMS, f"no test knows what to do with: {line}"
        assert PROGRAMS[words[0]](words) is not False


def test_what_curl_asks_for_is_answered() -> None:
    """The lines of a page in their order, with what the answers before told in place of <...>."""
    lines = [line for block in blocks(DOCS / "harness.md", "sh") for line in block.splitlines() if "curl" in line]
    assert sorted(lines) == [line for line in LINES if line.startswith("curl")]
    sites, known = PublicSites(make_tasks("test", count=1, kinds=("newsletter",))), dict[str, str]()

    def follow(base: str) -> None:
        for line in lines:
            for name, value in known.items():
                line = line.replace(f"<{name}>", value)
            _, _, address, *data = words_of(line)
            body = data[1].encode() if data else None
            code, answer = ask(address.replace("localhost:8123", base), body)
            assert code in (200, 201) and answer, line
            if isinstance(answer, list):
                known["id"] = answer[0]["id"]
            elif "episode" in answer:
                known["episode"] = answer["episode"]

    async def serve() -> None:
        await sites.server.start()
        await asyncio.to_thread(follow, sites.server.base_url)
        await sites.server.stop()

    asyncio.run(serve())
    assert known["episode"]


# Typer brings its own copy of click, so its exceptions are reached through typer alone.
(MissingParameter,) = [cls for cls in typer.BadParameter.__subclasses__() if cls.__name__ == "MissingParameter"]


def told(page: Path) -> list[str]:
    return re.findall(r"`((?:dllm-rl|make|python -m) [^`]+)`", page.read_text())


@pytest.mark.parametrize("page", [page for page in PAGES if told(page)], ids=lambda page: page.name)
def test_commands_in_running_text_exist(page: Path) -> None:
    """One that is named alone exists; one with arguments is parsed, where none of them stands for something."""
    for text in told(page):
        words = words_of(text)
        if words[0] != "dllm-rl":
            PROGRAMS[words[0]](words)
        elif len(words) > 2 and not PLACEHOLDER.fullmatch(words[1]):
            # What a sentence is about may lack what a command must be given.
            with contextlib.suppress(MissingParameter):
                parse(words[1:])
        elif not words[1].startswith("--") and not PLACEHOLDER.fullmatch(words[1]):
            assert words[1] in get_command(app).commands, f"{page.name}: {text}"  # type: ignore[attr-defined]


# Blocks of Python by a line of theirs, with the file of tests that runs them and how it names them. The others are run
# here.
ELSEWHERE = {
    "import check_objective": ("objectives/test_adding.py", "python check_broken.py"),
    "class GMPO": ("objectives/test_adding.py", '"gmpo.py"'),
    "Geometric-mean objectives": ("objectives/test_adding.py", '"geometric_mean"'),
    "class TwoLevelPolicy": ("dllm_rl/policies/test_new_family.py", "adding_a_family"),
    "GenericEnvClient": ("harness/environments/test_openenv.py", "GenericEnvClient"),
}
LOOKALIKE = ROOT / "tests" / "harness" / "environments" / "lookalike"
# What is smaller here, and what stands where a page says "yours".
HERE = {
    "passes=20_000": "passes=4, batch_size=2",
    'folder=Path("path/to/checkout")': f'folder=Path("{LOOKALIKE}"), application="site.py:application"',
}
SHOWN = [(page.name, code) for page in pages()[1:] if page.name != "python.md" for code in blocks(page, "python")]
RUN = [(name, code) for name, code in SHOWN if not any(line in code for line in ELSEWHERE)]


def test_every_block_that_runs_elsewhere_is_on_a_page_and_in_its_tests() -> None:
    for line, (file, name) in ELSEWHERE.items():
        assert any(line in code for _, code in SHOWN), f"no page shows {line}"
        assert name in (ROOT / "tests" / file).read_text(), f"{line}: not in {file}"
    assert all(any(text in code for _, code in RUN) for text in HERE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages have by then: a recipe, a trained cell. What a page registers is forgotten."""
    monkeypatch.chdir(tmp_path)
    for kind in registry.KINDS:
        registry.names(kind)
        monkeypatch.setitem(registry._REGISTRY, kind, dict(registry._REGISTRY[kind]))
    policy, cell = tmp_path / "policy", tmp_path / "runs/mine/cells/<cell>/seed0"
    save_policy(make_tiny_policy("masked"), policy)
    (cell / "checkpoint").mkdir(parents=True)
    shutil.copy(policy / "model.safetensors", cell / "checkpoint")
    (cell / "cell.json").write_text(json.dumps({"checkpoint": str(policy), "facts": {}}))
    (cell / "rollouts.jsonl").write_text('{"task": "train/1", "plan": "submit p1.e1", "reward": 0.5}\n')
    recipe = yaml.safe_load(blocks(DOCS / "your_checkpoint.md", "yaml")[1])
    recipe["demonstrations"]["count"] = 6
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


@pytest.mark.browser
@pytest.mark.parametrize(("name", "code"), RUN, ids=[f"{name}-{number}" for number, (name, _) in enumerate(RUN)])
def test_python_of_a_page_runs(name: str, code: str, place: Path) -> None:
    for shown, here in HERE.items():
        code = code.replace(shown, here)
    names: dict[str, Any] = {"__name__": "__main__"}
    if name == "adding_a_sampler.md":
        # Part of what `dllm-rl new sampler my_order` writes, whose test runs it.
        assert code in write_template("sampler", "my_order", place).read_text()
        return
    if "GRPOTrainer(" in code:
        names["GRPOTrainer"] = lambda _, callbacks: callbacks
    exec(compile(code, name, "exec", dont_inherit=True), names)
    for reward in re.findall(r'^@register\("reward", "(\w+)"\)', code, re.MULTILINE):
        assert check_reward(registry.build("reward", reward))
    if "trainer" in names:
        assert [type(callback) for callback in names["trainer"]] == [names["CollapseCallback"]]
    if "my_policy" in code:
        assert load_policy("my_policy").family == "masked"
    if "outcomes" in names:
        assert names["outcomes"][0].is_success and names["left_out"]
