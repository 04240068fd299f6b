"""`dllm-rl sites`: the built-in sites for agents of other people, and the forms of somebody else's checkout."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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


@sites_app.command("formfactory")
def check_formfactory(
    folder: Annotated[Path, typer.Argument(help="Folder of your own checkout of FormFactory.")],
    application: Annotated[str, typer.Option(help="Its WSGI application, as FILE:ATTRIBUTE.")] = "app.py:app",
    python: Annotated[Path | None, typer.Option(help="The Python that has its packages; default: this one.")] = None,
    fixtures: Annotated[Path | None, typer.Option(help="Folder of files that plans may upload.")] = None,
    vendored: Annotated[Path | None, typer.Option(help="Folder of external assets, as <host>/<path>.")] = None,
    max_records: Annotated[int | None, typer.Option(min=1, help="Records a form; default: all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Serve the forms of a checkout, say which records no plan can satisfy and why, and run the oracle on the rest."""
    from experiments.cli.formfactory import check

    settings = {"python": python, "fixtures": fixtures, "vendored": vendored}
    raise typer.Exit(check(folder, application, max_records=max_records, as_json=as_json, **settings))
