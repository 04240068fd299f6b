"""`dllm-rl new`: templates of plug-ins to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dllm_rl.errors import ConfigError

new_app = typer.Typer(help="Write the template of a plug-in.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="Name in snake_case; also the file's.")]


@new_app.command("objective")
def new_objective(
    name: NameArgument,
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path("objectives"),
) -> None:
    """Write a working objective of about 40 lines to start from."""
    from experiments.cli.templates import write_objective

    _check_name(name, "an objective", "my_objective")
    print(f"wrote {write_objective(name, folder)}. It is registered already: dllm-rl list objectives")


@new_app.command("sampler")
def new_sampler(
    name: NameArgument,
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path("samplers/rules"),
) -> None:
    """Write a working unmasking rule of about 25 lines to start from."""
    from experiments.cli.templates import write_sampler

    _check_name(name, "a sampler", "my_order")
    print(f"wrote {write_sampler(name, folder)}. It is registered already: dllm-rl list samplers")


def _check_name(name: str, what: str, example: str) -> None:
    if not name.isidentifier() or name != name.lower():
        raise ConfigError(f"'{name}' is no name for {what}: use snake_case, such as {example}")
