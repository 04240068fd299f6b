"""Outcomes by key in one SQLite file that any number of processes share, or in memory.

A write is a transaction of its own: an outcome is whole or absent, whatever is killed. The file is a cache, which does
not wait for the disk: a power cut may damage it, so each outcome has a hash beside it, and one that does not fit counts
as absent and is dropped. Where the file cannot be read or written, that is told once, and outcomes are kept in memory
from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sqlite3
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dllm_rl.records.tasks import ActionResult, Ending, Fault, FieldResult, Outcome

_LOGGER = logging.getLogger(__name__)
# How long another process may hold the file. A write takes milliseconds.
_WAIT_SECONDS = 30.0
_COLUMNS = "key TEXT PRIMARY KEY, outcome TEXT NOT NULL, hash TEXT NOT NULL"


class OutcomeStore:
    """Outcomes by key.

    Args:
        path: The file; None keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def get(self, key: str) -> Outcome | None:
        """The outcome that was put under this key; None where there is none."""
        for text, given in self._execute("SELECT outcome, hash FROM outcomes WHERE key = ?", _row(key)):
            outcome = _read(text) if given == _hash(key, text) else None
            if outcome is None:
                # A row that stays would keep the next outcome out.
                self.drop(key)
            return outcome
        return None

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep an outcome. One that another process put there first stays."""
        text = json.dumps(asdict(outcome))
        self._execute("INSERT OR IGNORE INTO outcomes VALUES (?, ?, ?)", _row(key), text, _hash(key, text))

    def drop(self, key: str) -> None:
        """Drop the outcome under this key, if there is one."""
        self._execute("DELETE FROM outcomes WHERE key = ?", _row(key))

    def clear(self) -> None:
        """Drop all outcomes, those of other processes included."""
        self._execute("DELETE FROM outcomes")

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _execute(self, statement: str, *values: str) -> list[tuple[str, str]]:
        try:
            return self._opened().execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            _LOGGER.warning(
                "'%s' cannot be used (%s), so outcomes are shared within this process only. Delete that file if this "
                "goes on.",
                self.path,
                error,
            )
            with contextlib.suppress(sqlite3.Error):
                self.close()
            self.path, self._connection = None, None
            return self._opened().execute(statement, values).fetchall()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            # One thread uses it at a time: that of the environment, which is another one after a close.
            self._connection = sqlite3.connect(
                self.path or ":memory:", timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS outcomes ({_COLUMNS}) WITHOUT ROWID")
        return self._connection


def _shape(*records: type) -> str:
    """Hash of the names of what outcomes hold, by which versions with other fields do not meet."""
    names = [[item.name for item in fields(record)] for record in records]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


_SHAPE = _shape(Outcome, FieldResult, ActionResult)


def _row(key: str) -> str:
    return f"{key} {_SHAPE}"


def _hash(key: str, text: str) -> str:
    return hashlib.sha256(f"{key}{text}".encode()).hexdigest()


def _read(text: str) -> Outcome | None:
    """An outcome from its JSON; None where that is not one."""
    try:
        record: dict[str, Any] = json.loads(text)
        return Outcome(
            **{
                **record,
                "fault": Fault(record["fault"]),
                "ending": None if record["ending"] is None else Ending(record["ending"]),
                "fields": tuple(FieldResult(**_with_tuples(item)) for item in record["fields"]),
                "actions": tuple(ActionResult(**item) for item in record["actions"]),
                **{name: tuple(record[name]) for name in ("validity_errors", "dialogs", "errors_by_rejection")},
            }
        )
    except (TypeError, KeyError, ValueError):
        return None


def _with_tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
