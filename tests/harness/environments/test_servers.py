"""Servers of all kinds, as their users start them, by the documented commands: tried, trained on, and reported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.experiments.cli.test_cli import said

pytestmark = pytest.mark.browser
SERVERS = Path(__file__).parent / "servers"
PAGE = """<!doctype html><html lang=en><meta charset=utf-8><title>Book</title><div id=app></div>
<script src=app.js></script>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site, as options say where it comes from, and what its tasks want."""

    options: dict[str, Any]
    wanted: list[dict[str, Any]]

    def words(self) -> list[str]:
        """The options as `site try` takes them."""
        return [word for name, value in self.options.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def django(folder: Path) -> Site:
    """What `django-admin startproject` makes, and one form."""
    subprocess.run([sys.executable, "-m", "django", "startproject", "classes", folder], check=True)
    shutil.copy(SERVERS / "urls.py", folder / "classes" / "urls.py")
    pupil = {"Full name": "Ann Lee", "E-mail": "ann@mail.com", "Level": "Beginner", "I accept the terms": True}
    return Site(
        options={"start": f"{sys.executable} {folder}/manage.py runserver --noreload {{port}}"},
        wanted=[{**pupil, "Course": "Pottery", "Seats": 2}, {**pupil, "Course": "Weaving"}],
    )


def php(folder: Path) -> Site:
    """The server that PHP brings, and one form with a token in its session."""
    needs("php")
    visitor = {"Name": "Ann Lee", "Email": "ann@mail.com", "Day": "Sunday"}
    return Site(
        options={"start": f"php -S 127.0.0.1:{{port}} -t {SERVERS}"},
        wanted=[{**visitor, "Interests": ["Glass", "Paper"]}, {**visitor, "Note": "two\nlines"}],
    )


def node(folder: Path) -> Site:
    """An API and a page that sends itself by script; cities follow from the country."""
    needs("node")
    parcel = {"Sender": "Ann Lee", "Weight in kg": 3}
    return Site(
        options={"start": f"node {SERVERS}/server.js"},
        wanted=[
            {**parcel, "Country": "Norway", "City": "Oslo", "Insured": True},
            {**parcel, "Country": "Belgium", "City": "Ypres"},
        ],
    )


def react(folder: Path) -> Site:
    """A built React app, served as a folder; what it calls its fields is not always what it shows."""
    needs("npm")
    shutil.copy(SERVERS / "app.jsx", folder)
    subprocess.run(["npm", "install", "--silent", "react", "react-dom", "esbuild"], cwd=folder, check=True)
    build = ["node_modules/.bin/esbuild", "app.jsx", "--bundle", "--jsx=automatic", "--outfile=site/app.js"]
    subprocess.run(build, cwd=folder, check=True)
    (folder / "site" / "index.html").write_text(PAGE)
    return Site(
        options={"folder": str(folder / "site"), "sent_as": {"guests": "Guest 1"}},
        wanted=[
            {"Name": "Ann Lee", "Room": "Double", "Nights": 3, "Breakfast": True},
            {"Name": "Ann Lee", "Room": "Single", "Guest 1": "Bo Ek"},
        ],
    )


def pages(folder: Path) -> Site:
    """A folder of static HTML with two forms."""
    for name, field in (("index", "Name"), ("help", "Question")):
        form = f"<form action=/sent><label>{field} <input name=said required></label><button>Send</button></form>"
        (folder / f"{name}.html").write_text(f"<!doctype html><title>{name}</title><h1>{name}</h1>{form}")
    return Site(options={"folder": str(folder)}, wanted=[{"Name": "Ann Lee"}, {"Name": "Bo Ek"}])


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def tried(site: Site, folder: Path, monkeypatch: Any, capsys: Any) -> dict[str, Any]:
    """What `dllm-rl site try` says of the site's tasks."""
    monkeypatch.chdir(folder)
    lines = [{"values": values, "split": split} for split in ("train", "val") for values in site.wanted]
    (folder / "tasks.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    code, shown, errors = said(("site", "try", "--tasks", "tasks.jsonl", "--json", *site.words()), monkeypatch, capsys)
    assert code in (0, 1), errors
    return json.loads(shown)


def test_a_stock_django_project_is_solved_and_its_errors_are_told(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "site").mkdir()
    site = django(tmp_path / "site")
    site.wanted.append({**site.wanted[0], "Course": "Carving"})
    found = tried(site, tmp_path, monkeypatch, capsys)
    refused = list(found["failed"])
    assert (found["run"], [name.split(".")[0] for name in refused]) == (6, ["train/3", "val/6"])
    assert all("rejected: Carving is for advanced pupils only." in found["failed"][name] for name in refused)
    assert found["unsolvable"] == {} and found["given_away"] == []


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("make", [django, php, node, react, pages])
def test_a_server_of_any_kind_is_solved_trained_on_and_reported(
    make: Callable[[Path], Site], tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "made").mkdir()
    site = make(tmp_path / "made")
    found = tried(site, tmp_path, monkeypatch, capsys)
    assert (found["run"], found["failed"], found["given_away"], found["unsolvable"]) == (4, {}, [], {})
    environment = json.dumps({"name": "site", "options": {**site.options, "tasks": "tasks.jsonl"}})
    steps = ("train.steps=2", "train.prompts_per_step=2", "train.group_size=2", "evaluation.num_samples=1")
    code, _, errors = said(
        ("train", "quick", "masked", "grpo", f"environment={environment}", *steps), monkeypatch, capsys
    )
    assert code == 0, errors
    run = tmp_path / "runs" / "masked-grpo"
    assert (run / "report.html").is_file()
    (rollouts,) = run.glob("cells/*/seed0/rollouts.jsonl")
    faults = [json.loads(line)["fault"] for line in rollouts.read_text().splitlines()]
    assert len(faults) == 8 and "environment" not in faults
