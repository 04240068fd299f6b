"""`dllm-rl sites`: the built-in sites for agents of other people, and the forms of somebody else's checkout."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dllm_rl.errors import ConfigError

if TYPE_CHECKING:
    from dllm_rl.records.tasks import Outcome
    from harness.environments import Catalogue, FormFactoryEnvironment, FormFactorySettings
    from harness.environments.openenv import OpenEnvServer
    from harness.sites.public_sites import PublicSites


sites_app = typer.Typer(help="The built-in sites, on their own.", no_args_is_help=True)
WorldOption = Annotated[str, typer.Option(help="basic, or rich: further kinds and richer controls.")]
DifficultyOption = Annotated[list[int] | None, typer.Option(help="Of the rich world, 1 to 3; default: all.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@sites_app.command("serve")
def serve_sites(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")] = 8123,
    split: Annotated[str, typer.Option(help="Tasks that are offered.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="How many of them.")] = 60,
    world: WorldOption = "basic",
    difficulty: DifficultyOption = None,
) -> None:
    """Serve the built-in sites and their tasks on loopback, for agents of other people."""
    from harness.environments import tasks_for, world_settings
    from harness.sites.public_sites import PublicSites

    settings = world_settings(world, difficulty or (), counts={split: count})
    asyncio.run(_serve(PublicSites(tasks_for(settings, split), port=port)))


async def _serve(sites: PublicSites) -> None:
    await sites.server.start()
    base = sites.server.base_url
    print(f"{len(sites.tasks)} tasks: {base}/tasks\nbegin one:  POST {base}/episodes\nstop: Ctrl-C", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await sites.server.stop()


@sites_app.command("openenv")
def serve_openenv(
    environment: Annotated[
        str, typer.Option(help="Environment, as YAML: {name: site, options: {folder: workshop, tasks: tasks.jsonl}}.")
    ] = "forms",
    reward: Annotated[str, typer.Option(help="Reward of an episode, as YAML.")] = "shaped",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")] = 8000,
    max_sessions: Annotated[int, typer.Option(min=1, help="Sessions at a time.")] = 64,
) -> None:
    """Serve an environment by the OpenEnv protocol, for trainers of other people."""
    from experiments.cli.components import component_of
    from experiments.design.config import build_environment, build_reward
    from harness.environments.openenv import OpenEnvServer

    chosen = component_of(environment, "--environment", "{name: forms, options: {world: rich}}")
    paid = component_of(reward, "--reward", "shaped")
    server = OpenEnvServer(
        build_environment(chosen), build_reward(paid), name=chosen.name, port=port, max_sessions=max_sessions
    )
    asyncio.run(_serve_openenv(server))


async def _serve_openenv(server: OpenEnvServer) -> None:
    try:
        await server.start()
        print(f"{server.name}: {server.base_url}\nstop: Ctrl-C", flush=True)
        await asyncio.Event().wait()
    finally:
        await server.stop()


@sites_app.command("formfactory")
def check_formfactory(
    folder: Annotated[Path, typer.Argument(help="Folder of your own checkout of FormFactory.")],
    application: Annotated[str, typer.Option(help="Its WSGI application, as FILE:ATTRIBUTE.")] = "app.py:app",
    python: Annotated[Path | None, typer.Option(help="The Python that has its packages; default: this one.")] = None,
    fixtures: Annotated[Path | None, typer.Option(help="Folder of files that plans may upload.")] = None,
    vendored: Annotated[Path | None, typer.Option(help="Folder of external assets, as <host>/<path>.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=FIELD", help="Field of a gold key that names no control; KEY= leaves the key out."),
    ] = None,
    max_records: Annotated[int | None, typer.Option(min=1, help="Records a form; default: all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve the forms of a checkout, say which records no plan can satisfy and why, and run the oracle on the rest."""
    from harness.environments import FormFactorySettings

    settings = FormFactorySettings(
        folder=folder,
        application=application,
        fixtures=fixtures,
        vendored=vendored,
        keys=dict(map(_pair, key or ())),
        python=str(python or sys.executable),
    )
    raise typer.Exit(check(settings, max_records=max_records, as_json=as_json))


def _pair(text: str) -> tuple[str, str]:
    name, sign, field = text.rpartition("=")
    if not sign:
        raise ConfigError(f"--key {text}: expected KEY=FIELD, such as --key 'Applicant=fullName'.")
    return name, field


def check(settings: FormFactorySettings, *, max_records: int | None = None, as_json: bool = False) -> int:
    """Print one line a form and the reasons; 1 where the oracle fails on a record that should be solvable."""
    from harness.environments import FormFactoryEnvironment

    environment = FormFactoryEnvironment(settings)
    catalogue, outcomes = asyncio.run(_run(environment, max_records))
    failed = {item.task_id: _reason(item) for item in outcomes if not item.is_success}
    if as_json:
        unsolvable = [{"task": item.task_id, "form": item.form, "reason": item.reason} for item in catalogue.unsolvable]
        record = {
            "solvable": len(catalogue.tasks),
            "run": len(outcomes),
            "failed": failed,
            "unsolvable": unsolvable,
            "forms_without_records": catalogue.forms_without_records,
            "files_without_form": catalogue.files_without_form,
        }
        print(json.dumps(record, indent=2))
    else:
        _print(environment, catalogue, outcomes, failed)
    return 1 if failed else 0


async def _run(environment: FormFactoryEnvironment, max_records: int | None) -> tuple[Catalogue, list[Outcome]]:
    from harness.environments.formfactory.environment import sample

    async with environment:
        catalogue = environment.catalogue
        if not (catalogue.tasks or catalogue.unsolvable):
            raise ConfigError(
                f"{environment.checkout.folder}: no form that the first page links to has a file of gold records. "
                "Give the folder that holds both, the application and its data."
            )
        chosen = sample(catalogue.tasks, max_records)
        plans = [environment.gold_plan(task, await environment.observe(task)) for task in chosen]
        progress = Progress(console=Console(stderr=True), transient=True)
        with progress:
            bar = progress.add_task("records", total=len(chosen))
            outcomes = await environment.run_many(
                list(zip(chosen, plans, strict=True)), on_result=lambda at, outcome: progress.advance(bar)
            )
        return catalogue, outcomes


def _reason(outcome: Outcome) -> str:
    wrong = [item.name for item in outcome.fields if not item.is_correct]
    return outcome.fault_reason or (f"received otherwise: {', '.join(wrong)}" if wrong else "nothing was accepted")


def _print(
    environment: FormFactoryEnvironment, catalogue: Catalogue, outcomes: list[Outcome], failed: dict[str, str]
) -> None:
    solvable = Counter(task.site for task in catalogue.tasks)
    num_run = Counter(item.task_id.rsplit("-", 1)[0] for item in outcomes)
    solved = Counter(item.task_id.rsplit("-", 1)[0] for item in outcomes if item.is_success)
    table = Table(box=None, pad_edge=False)
    # Numbers first, so that a narrow terminal or a pipe cuts none of them.
    for name in ("records", "solvable", "oracle"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("form", overflow="fold")
    for form in environment.forms:
        key = f"formfactory/{form.form}"
        table.add_row(
            str(len(form.records)), str(solvable[form.path]), f"{solved[key]} of {num_run[key]}",
            f"{form.path} ({form.file})",
        )  # fmt: skip
    console = Console(highlight=False, markup=False)
    console.print(table)
    for (path, reason), count in Counter((item.form, item.reason) for item in catalogue.unsolvable).most_common():
        console.print(f"{count} x {path}: {reason}")
    for path in catalogue.forms_without_records:
        console.print(f"no file of records fits {path}")
    for file in catalogue.files_without_form:
        console.print(f"no form has the keys of {file}")
    for task_id, reason in failed.items():
        console.print(f"not solved: {task_id}: {reason}", highlight=False, markup=False)
