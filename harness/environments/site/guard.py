"""Runs a command in a process group of its own and ends the whole group with whoever started it. Standard library only.

`guard.py <program> <argument>...`. The group ends when our stdin does, and so however our parent ends, and when we are
told to end (SIGTERM); when the program ends by itself, so do we, with its exit code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 3.0


def main() -> None:
    """Start the program, and wait for its end or ours."""
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    # In a thread, since this one waits for the program.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_end, args=[program]).start())
    threading.Thread(target=_end_with_parent, args=[program], daemon=True).start()
    code = program.wait()
    # What it has started in the background is its group's.
    _signal(program.pid, signal.SIGKILL)
    os._exit(code if code >= 0 else 128 - code)


def _end_with_parent(program: subprocess.Popen[bytes]) -> None:
    sys.stdin.read()
    _end(program)


def _end(program: subprocess.Popen[bytes]) -> None:
    _signal(program.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        program.wait(GRACE_SECONDS)
    _signal(program.pid, signal.SIGKILL)
    os._exit(0)


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    main()
