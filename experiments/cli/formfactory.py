"""`dllm-rl sites formfactory`: what of a checkout's gold can be satisfied, and whether the oracle does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Outcome
from harness.environments import Catalogue, FormFactoryEnvironment, FormFactorySettings
from harness.environments.formfactory.checkout import oracle_plan
from harness.environments.formfactory.environment import sample


def check(
    folder: Path,
    application: str,
    *,
    python: Path | None = None,
    fixtures: Path | None = None,
    vendored: Path | None = None,
    max_records: int | None = None,
    as_json: bool = False,
) -> int:
    """Print one line a form and the reasons; 1 where the oracle fails on a record that should be solvable."""
    environment = FormFactoryEnvironment(
        FormFactorySettings(
            folder=folder,
            application=application,
            fixtures=fixtures,
            vendored=vendored,
            python=str(python or sys.executable),
        )
    )
    catalogue, outcomes = asyncio.run(_run(environment, max_records))
    failed = {item.task_id: _reason(item) for item in outcomes if not item.is_success}
    if as_json:
        unsolvable = [{"task": item.task_id, "form": item.form, "reason": item.reason} for item in catalogue.unsolvable]
        record = {"solvable": len(catalogue.tasks), "run": len(outcomes), "failed": failed, "unsolvable": unsolvable}
        print(json.dumps(record, indent=2))
    else:
        _print(environment, catalogue, outcomes, failed)
    return 1 if failed else 0


async def _run(environment: FormFactoryEnvironment, max_records: int | None) -> tuple[Catalogue, list[Outcome]]:
    async with environment:
        catalogue = environment.catalogue
        if not (catalogue.tasks or catalogue.unsolvable):
            raise ConfigError(
                f"{environment.checkout.folder}: no form that the first page links to has a file of gold records. "
                "Give the folder that holds both, the application and its data."
            )
        chosen = sample(catalogue.tasks, max_records)
        return catalogue, [
            await environment.run(task, oracle_plan(task, await environment.observe(task))) for task in chosen
        ]


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
    for name in ("form", "page", "records", "solvable", "oracle"):
        table.add_column(name, no_wrap=True)
    for form in environment.forms:
        key = f"formfactory/{form.form}"
        shown = f"{solved[key]} of {num_run[key]}"
        table.add_row(form.form, form.path, str(len(form.records)), str(solvable[form.path]), shown)
    console = Console()
    console.print(table)
    for reason, count in catalogue.reasons().most_common():
        console.print(f"{count} records: {reason}", highlight=False, markup=False)
    for task_id, reason in failed.items():
        console.print(f"not solved: {task_id}: {reason}", highlight=False, markup=False)
