"""`dllm-rl site`: a site of one's own, looked at as a policy will see it, with what its tasks come to."""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from dllm_rl.errors import ConfigError
from experiments.cli.sites import JsonFlag

if TYPE_CHECKING:
    from dllm_rl.records.tasks import Observation, Outcome, Task
    from harness.environments import SiteEnvironment
    from harness.environments.site.tasks import SiteTasks

site_app = typer.Typer(help="A site of your own.", no_args_is_help=True)


Source = Annotated[
    str | None, typer.Argument(help="Address of a server that runs (http://127.0.0.1:8000), or a folder of HTML.")
]
Start = Annotated[str | None, typer.Option(help="Command that starts the server; {port} in it, and PORT, say where.")]
Application = Annotated[str | None, typer.Option(help="WSGI or ASGI application, as FILE:ATTRIBUTE.")]
Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A further option of the environment, such as reset or fixtures."),
]
Allow = Annotated[list[str] | None, typer.Option(help="A host beside this machine that may be reached.")]


def site_options(
    source: str | None, start: str | None, application: str | None, allow: list[str] | None, more: list[str] | None
) -> dict[str, Any]:
    """Options of the environment, as a preset writes them."""
    from experiments.design.overrides import read_yaml

    options: dict[str, Any] = {"start": start, "application": application, "allow": allow}
    if source is not None:
        options["url" if source.startswith(("http://", "https://")) else "folder"] = source
    for text in more or ():
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set {text}: expected KEY=VALUE, such as --set reset='sh reset.sh'.")
        options[key] = read_yaml(value, source=f"--set {text}", advice="Quote the value.")
    return {key: value for key, value in options.items() if value is not None}


@site_app.command("try")
def try_site(
    source: Source = None,
    start: Start = None,
    application: Application = None,
    tasks: Annotated[Path | None, typer.Option(help="JSONL file of tasks.")] = None,
    option: Options = None,
    allow: Allow = None,
    max_tasks: Annotated[int | None, typer.Option(min=1, help="Tasks that are run; default: all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look at a site as a policy will see it, run the plans that should succeed, and say what cannot be solved."""
    from dllm_rl import registry

    options = site_options(source, start, application, allow, option)
    options |= {"tasks": str(tasks)} if tasks is not None else {}
    tried = asyncio.run(_try(registry.build("environment", "site", options), max_tasks))
    if as_json:
        print(json.dumps(tried.record(), indent=2))
    else:
        tried.show(options)
    raise typer.Exit(1 if tried.failed or tried.given_away else 0)


@site_app.command("draft")
def draft_tasks(
    source: Source = None,
    start: Start = None,
    application: Application = None,
    out: Annotated[Path, typer.Option(help="File that is written.")] = Path("tasks.jsonl"),
    count: Annotated[int, typer.Option(min=1, help="Number of tasks.")] = 60,
    page: Annotated[list[str] | None, typer.Option(help="Path of a page with a form; default: all linked.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is drawn.")] = 0,
    option: Options = None,
    allow: Allow = None,
) -> None:
    """Write a first file of tasks: values drawn for the fields of each form, as far as the site accepts them."""
    from dllm_rl import registry

    if out.exists():
        raise ConfigError(f"{out} exists. Give another --out, or remove it.")
    options = site_options(source, start, application, allow, option)
    lines = asyncio.run(_draft(registry.build("environment", "site", options), page or [], count, seed))
    out.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} tasks in {out}")


async def _why_refused(environment: SiteEnvironment, drawn: SiteTasks) -> str:
    """What became of the first task that was drawn, as a sentence."""
    for item in drawn.solvable[:1]:
        for why in (await environment.self_check([item.task])).values():
            said = why.reason.rstrip(".")
            return f" Of {json.dumps(item.record.values, ensure_ascii=False)} it said: {said}."
    return ""


async def _draft(environment: SiteEnvironment, paths: list[str], count: int, seed: int) -> list[dict[str, Any]]:
    """Draw tasks, twice as many as asked for, and keep those that the site accepts."""
    from dllm_rl.seeding import python_random
    from harness.environments.recorded import linked_forms
    from harness.environments.site.draft import draft
    from harness.environments.site.tasks import TaskRecord, make_tasks

    async with environment:
        paths = paths or await asyncio.to_thread(linked_forms, environment.proxy.upstream) or ["/"]
        seen = {path: await environment.observed(path) for path in paths}
        lines = [
            draft(seen[path].page, path, python_random(seed, "draft", path, number))
            for number in range(2 * count)
            for path in [paths[number % len(paths)]]
        ]
        lines = [line for line in lines if line["values"]]
        records = [TaskRecord.model_validate({**line, "split": "test"}) for line in lines]
        drawn = make_tasks(records, seen, tuple(environment.files))
        found = await environment.take(drawn, count)
        first = "" if found else await _why_refused(environment, drawn)
    if not found:
        raise ConfigError(
            f"the site accepted nothing that was drawn.{first} Write the tasks by hand; see docs/your_site.md."
        )
    return [lines[number] for number in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a site and its tasks came to.

    Attributes:
        pages: Observation by path of the form's first page.
        tasks: Tasks that were run.
        failed: Why the plan that should solve a task did not, by task.
        given_away: Tasks that the empty plan solves.
        unsolvable: Why no plan can solve a task, by task.
        refused: Addresses outside of the site that its pages asked for.
        sent_otherwise: By field, the name under which its value was sent, where no field has that name.
    """

    pages: dict[str, Observation]
    tasks: list[Task]
    failed: dict[str, str]
    given_away: list[str]
    unsolvable: dict[str, str]
    refused: list[str]
    sent_otherwise: dict[str, str]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "pages": {path: _lines(page) for path, page in self.pages.items()},
            "run": len(self.tasks),
            "failed": self.failed,
            "given_away": self.given_away,
            "unsolvable": self.unsolvable,
            "refused": self.refused,
            "sent_otherwise": self.sent_otherwise,
        }

    def show(self, options: dict[str, Any]) -> None:
        """Print it."""
        console = Console(highlight=False, markup=False, soft_wrap=True)
        for path, page in self.pages.items():
            console.print(f"{path}")
            for line in _lines(page):
                console.print(f"  {line}")
        for address in self.refused:
            console.print(f"refused: {address}. {_why_not(address)}")
        for name, reason in self.unsolvable.items():
            console.print(f"cannot be solved: {name}: {reason}")
        for name, reason in self.failed.items():
            console.print(f"not solved: {name}: {reason}")
        for name, sent in self.sent_otherwise.items():
            told = shlex.quote(f"sent_as={{{sent}: {name}}}")
            console.print(f"the value of {name} was sent as '{sent}'. If that is its name, say so: --set {told}")
        for name in self.given_away:
            console.print(f"solved by an empty plan: {name}")
        if self.tasks or self.unsolvable:
            splits = ", ".join(f"{split} {count}" for split, count in _by_split(self.tasks).items())
            num_solved = len(self.tasks) - len(self.failed)
            console.print(f"{num_solved} of {len(self.tasks)} tasks solved ({splits or 'none can be'})")
        if self.tasks and not self.failed:
            told = json.dumps({"name": "site", "options": options})
            console.print(f"train on it: dllm-rl train quick masked grpo {shlex.quote('environment=' + told)}")


def _why_not(address: str) -> str:
    """Why an address was refused, and what helps."""
    if address.startswith(("ws://", "wss://")):
        return "Sockets are not opened."
    return (
        "Neither other hosts, nor downloads, nor event streams are reached. What a form needs of other hosts it takes "
        "from the option vendored."
    )


def _by_split(tasks: list[Task]) -> dict[str, int]:
    splits = [task.split for task in tasks]
    return {split: splits.count(split) for split in dict.fromkeys(splits)}


def _lines(page: Observation) -> list[str]:
    """The page as a prompt writes it, but for the instruction."""
    from dllm_rl.records.tasks import Task, render_prompt

    empty = Task(id="", split="test", site="", instruction="-", gold=())
    return render_prompt(empty, page).splitlines()[1:-1]


async def _try(environment: SiteEnvironment, max_tasks: int | None) -> Tried:
    from harness.environments.recorded import linked_forms

    async with environment:
        known = environment.all_tasks
        tasks = [item.task for item in known.solvable][:max_tasks]
        paths = list(dict.fromkeys(record.start for record in environment.records))
        paths = paths or await asyncio.to_thread(linked_forms, environment.proxy.upstream) or ["/"]
        pages = {path: (await environment.observed(path)).page for path in paths}
        plans = [environment.gold_plan(task, pages[task.site]) for task in tasks]
        outcomes = await environment.run_many([*zip(tasks, plans, strict=True), *((task, "") for task in tasks)])
    solved, empty = outcomes[: len(tasks)], outcomes[len(tasks) :]
    return Tried(
        pages=pages,
        tasks=tasks,
        failed={item.task_id: _reason(item) for item in solved if not item.is_success},
        given_away=[item.task_id for item in empty if item.is_success],
        unsolvable={item.task_id: item.reason for item in known.unsolvable},
        refused=list(environment.refused),
        sent_otherwise=environment.sent_otherwise,
    )


def _reason(outcome: Outcome) -> str:
    """What went wrong, the last words of the site included."""
    said = "; ".join(outcome.validity_errors[:2])
    return f"{outcome.notes()}{f' ({said})' if said and said not in outcome.notes() else ''}"
