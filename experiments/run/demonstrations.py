"""Demonstrations that do not come from built-in forms.

A data set is a JSONL or Parquet file, or a hub id, with the columns `prompt` and `plan`. An environment gives the gold
plans of its tasks, on the pages as the scout reads them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm_rl.errors import ConfigError
from dllm_rl.hub import needs_hub, unreachable
from dllm_rl.records.tasks import render_prompt
from experiments.design.config import Component, build_session

if TYPE_CHECKING:
    import datasets

    from dllm_rl.training.warmstart import Demonstration

_LOGGER = logging.getLogger(__name__)
COLUMNS = ("prompt", "plan")
_READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def as_dataset(demonstrations: Iterable[Demonstration]) -> datasets.Dataset:
    """Return demonstrations as a data set, which `to_json`, `to_parquet` and `push_to_hub` write."""
    import datasets

    return datasets.Dataset.from_list([{"prompt": item.prompt, "plan": item.plan} for item in demonstrations])


def read_demonstrations(source: str, *, split: str = "train", count: int | None = None) -> list[Demonstration]:
    """Return the demonstrations of a file or a hub id, the first `count` of them.

    Raises ConfigError where there is no such data set, or it has no texts in these columns.
    """
    from dllm_rl.training.warmstart import Demonstration

    rows: Any = _load(source, split)
    lacking = [name for name in COLUMNS if name not in rows.column_names]
    if lacking:
        raise ConfigError(
            f"the demonstrations in '{source}' have the columns {', '.join(rows.column_names)}; expected prompt (what "
            f"the policy reads) and plan (what it should write). Add or rename {', '.join(lacking)}."
        )
    rows = rows if count is None else rows.take(min(count, len(rows)))
    for number, row in enumerate(rows):
        for name in COLUMNS:
            if not isinstance(row[name], str) or not row[name]:
                raise ConfigError(
                    f"row {number} of the demonstrations in '{source}' has {name}={row[name]!r}; expected a text. "
                    "Mend or remove it."
                )
    if not len(rows):
        raise ConfigError(f"the demonstrations in '{source}' are empty. Give a data set with at least one row.")
    return [Demonstration(prompt=row["prompt"], plan=row["plan"]) for row in rows]


def gold_demonstrations(
    environment: Component, *, split: str = "train", count: int | None = None
) -> list[Demonstration]:
    """Return the gold plans of an environment's first `count` tasks, each run once to see that it succeeds.

    Raises ConfigError where the environment has episodes of several turns, a task has no gold plan, or none succeeds.
    """
    from dllm_rl.training.warmstart import Demonstration

    with build_session(environment) as session:
        if session.environment.is_episodic:
            raise ConfigError(
                f"the environment '{environment.name}' has episodes of several turns; expected one of whole plans. "
                "For errands give demonstrations.errands."
            )
        tasks = session.tasks(split)[:count]
        wrong = session.self_check(tasks)
        kept = [task for task in tasks if task.id not in wrong]
        if not kept:
            told = f" The first one: {next(iter(wrong.values())).reason}" if wrong else ""
            raise ConfigError(
                f"the environment '{environment.name}' has {len(tasks)} tasks in the split '{split}', and no gold plan "
                f"of them succeeds, so there is nothing to imitate.{told}"
            )
        if wrong:
            task, why = next(iter(wrong.items()))
            _LOGGER.warning(
                "%d of %d gold plans do not succeed and are left out: %s, %s", len(wrong), len(tasks), task, why.reason
            )
        return [
            Demonstration(prompt=render_prompt(task, page), plan=session.gold_plan(task))
            for task, page in zip(kept, session.observe_many(kept), strict=True)
        ]


def _load(source: str, split: str) -> Any:
    path = Path(source)
    if path.suffix in _READERS and not path.is_file():
        raise ConfigError(f"no file '{source}' of demonstrations. Give a JSONL or Parquet file, or a hub id.")
    if path.suffix not in _READERS and needs_hub(source) and (reason := unreachable()):
        raise ConfigError(
            f"cannot read the demonstrations in '{source}': this file does not exist, and the hub cannot be reached "
            f"({reason}). Give a JSONL or Parquet file, or connect."
        )
    import datasets

    try:
        if path.suffix in _READERS:
            return datasets.load_dataset(_READERS[path.suffix], data_files=source, split="train")
        return datasets.load_dataset(source, split=split)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"cannot read the demonstrations in '{source}': {first} Give a JSONL or Parquet file, or a hub id."
        ) from error
