"""The errors a user can cause, and one way to say them: what was given, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class DllmRlError(Exception):
    """Base of every error that is reported as one message instead of a traceback."""


class ConfigError(DllmRlError):
    """A setting, preset, name or combination that is not valid."""


class MissingFileError(ConfigError):
    """A file or folder that is to be read, such as a model that is trained first, and that is not there.

    Attributes:
        path: Where it should be.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class CheckpointError(DllmRlError):
    """A checkpoint that is missing, corrupt or does not belong to the configuration."""


class BrowserMissingError(DllmRlError):
    """No usable Chromium was found."""


class NonFiniteError(DllmRlError):
    """A reward or log-probability that is not a finite number reached an objective."""


class HarnessError(RuntimeError):
    """A bug of ours in the harness: a run stops loudly instead of learning from it."""


def unknown_name(kind: str, given: str, known: Iterable[str]) -> ConfigError:
    """Build the error for a name that does not exist, with the nearest known name and the whole list."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ConfigError(f"no {kind} named '{given}'.{hint} Known: {', '.join(names) or '(none)'}")
