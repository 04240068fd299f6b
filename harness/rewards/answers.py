"""Recorded answers of an endpoint, in one SQLite file that any number of processes share.

Each answer is a transaction of its own: whatever is killed, it is whole or absent, and what others record is seen at
the next question.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass, field
from pathlib import Path

from dllm_rl.errors import ConfigError

# How long another process may hold the file. A write takes milliseconds.
_WAIT_SECONDS = 30.0
_COLUMNS = "key TEXT PRIMARY KEY, answer TEXT NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an endpoint wrote, and the tokens that were paid for."""

    text: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Answers:
    """Answers by digest of what was asked.

    Attributes:
        path: The file; it is made where there is none.

    Raises ConfigError where the file is something else.
    """

    path: Path
    _connection: sqlite3.Connection = field(init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        # Threads take turns by the lock.
        try:
            self._connection = sqlite3.connect(
                self.path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute(f"CREATE TABLE IF NOT EXISTS answers ({_COLUMNS}) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise ConfigError(
                f"answers='{self.path}' holds no recorded answers ({error}). Name another file."
            ) from None

    def get(self, key: str) -> Answer | None:
        """The answer under a key; None where there is none."""
        rows = self._all("SELECT answer, prompt_tokens, completion_tokens FROM answers WHERE key = ?", key)
        return Answer(text=rows[0][0], prompt_tokens=rows[0][1], completion_tokens=rows[0][2]) if rows else None

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer. One that another process put there first stays."""
        row = (key, answer.text, answer.prompt_tokens, answer.completion_tokens)
        self._all("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", *row)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens that were read and written for all recorded answers."""
        total = "SELECT COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0) FROM answers"
        ((read, written),) = self._all(total)
        return read, written

    def _all(self, statement: str, *values: str | int) -> list[tuple]:
        with self._lock:
            return self._connection.execute(statement, values).fetchall()
