"""A Python application in a process of its own, on a copy, so that what it writes never reaches the user's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from dllm_rl.errors import ConfigError

START_SECONDS = 30.0
STOP_SECONDS = 5.0
# What a form page needs is small; recordings and pictures of a data set are not copied.
MAX_FILE_BYTES = 5_000_000
_LAUNCHER = Path(__file__).with_name("launch.py")


class ApplicationProcess:
    """The application's process. `python` is the interpreter that has the application's packages."""

    def __init__(self, folder: Path, application: str, *, python: str = sys.executable) -> None:
        # Absolute, for a process in another folder; links stay, since a virtual environment's Python is one.
        found = shutil.which(python)
        if found is None:
            raise ConfigError(
                f"'{python}' is not a program. Give the path of the Python that has the application's packages."
            )
        self.folder, self.application, self.python = folder, application, os.path.abspath(found)
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._complaints = b""
        self._reading: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Copy, start, and wait for the port. Raises ConfigError with the application's last line if it fails."""
        self._copy = tempfile.TemporaryDirectory(prefix="dllm_rl_site_")
        place = Path(self._copy.name) / "checkout"
        await asyncio.to_thread(shutil.copytree, self.folder, place, ignore=_unneeded)
        file, _, attribute = self.application.rpartition(":")
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            self.python, str(_LAUNCHER), f"{place / file}:{attribute}", self._copy.name,
            cwd=place, stdin=pipe, stdout=pipe, stderr=pipe,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._listen())
        try:
            async with asyncio.timeout(START_SECONDS):
                assert self._process.stdout is not None
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line.strip().isdigit():
            await self.stop()
            words = self._complaints.decode(errors="replace").strip().splitlines()
            raise ConfigError(
                f"the application {self.application} in {self.folder} does not start: "
                f"{words[-1] if words else 'no message'}. "
                "Install its packages here, or give the Python that has them."
            )
        self.port = int(line)

    async def stop(self) -> None:
        """End the process and remove the copy."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
            assert self._reading is not None
            await self._reading
            self._process = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    async def _listen(self) -> None:
        """Keep the end of stderr; a pipe that nobody reads would block the process."""
        assert self._process is not None
        assert self._process.stderr is not None
        while part := await self._process.stderr.read(65_536):
            self._complaints = (self._complaints + part)[-10_000:]


def _unneeded(folder: str, names: list[str]) -> set[str]:
    paths = [Path(folder) / name for name in names]
    return {
        path.name
        for path in paths
        if path.name in (".git", "__pycache__", ".venv", "node_modules")
        or path.is_symlink()
        or (path.is_file() and path.stat().st_size > MAX_FILE_BYTES)
    }
