"""Demonstrations as a data set: a JSONL or Parquet file, or a hub id, with the columns `prompt` and `plan`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dllm_rl.errors import ConfigError
from dllm_rl.hub import needs_hub, unreachable

if TYPE_CHECKING:
    import datasets

    from dllm_rl.training.warmstart import Demonstration

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


def _load(source: str, split: str) -> Any:
    path = Path(source)
    if path.suffix in _READERS and not path.is_file():
        raise ConfigError(f"no file '{source}' of demonstrations. Give a JSONL or Parquet file, or a hub id.")
    if path.suffix not in _READERS and needs_hub(source) and (reason := unreachable()):
        raise ConfigError(
            f"cannot read the demonstrations in '{source}': there is no such file here, and the hub cannot be reached "
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
