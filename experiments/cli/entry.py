"""Entry point of `dllm-rl`: exit codes, and one message instead of a traceback for what a user can mend."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import typer

from dllm_rl.errors import DllmRlError
from experiments.cli.commands import app


class ExitCode(IntEnum):
    """What the command's end says to other programs; docs/command_line.md explains each."""

    OK = 0
    FAILED = 1
    REFUSED = 2
    INTERRUPTED = 130


# Typer brings its own copy of click, so its exceptions are reached through typer alone.
UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run a command: a user's mistake is one message and exit code 2; Ctrl-C is one message and exit code 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        error.show()
        code = ExitCode.REFUSED
    except DllmRlError as error:
        print(f"dllm-rl: {error}", file=sys.stderr)
        code = ExitCode.REFUSED
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except OSError as error:
        from experiments.run.runner import is_disk_full

        if not is_disk_full(error):
            raise
        print(f"dllm-rl: no room is left to write ({error}). Free some, and give the command again.", file=sys.stderr)
        code = ExitCode.REFUSED
    # Newer versions of typer turn Ctrl-C into this exit code themselves.
    if code == ExitCode.INTERRUPTED:
        _end_interrupted()
    sys.exit(code or ExitCode.OK)


# Commands that keep what they have finished, and commands that run until they are stopped.
CONTINUING = (("grid",), ("train",), ("warmstart",))
ENDLESS = (("serve",), ("watch",), ("sites", "serve"), ("sites", "openenv"))


def farewell(words: Sequence[str]) -> str:
    """What an interrupted command says: only some have anything that the same command could continue."""
    path = tuple(word for word in words[:2] if not word.startswith("-"))
    if any(path[: len(known)] == known for known in ENDLESS):
        return "stopped."
    if any(path[: len(known)] == known for known in CONTINUING):
        return "interrupted. The same command continues where it stopped."
    return "interrupted. The same command begins anew."


def _end_interrupted() -> None:
    """Say so and end at once: everything is on disk, and what the browser's driver still has to say is of no use."""
    print(f"\ndllm-rl: {farewell(sys.argv[1:])}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(ExitCode.INTERRUPTED)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
