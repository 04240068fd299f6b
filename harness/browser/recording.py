"""Keeps what the browser saw of the last few rollouts that failed: a Playwright trace and a last screenshot."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from dllm_rl.records.tasks import Outcome, Task
from harness.browser.faults import attribute
from harness.browser.tab import Tab

_OURS = re.compile(r"-\d{4}T\d{6}-\d+-\d+\.zip$")


@dataclass(slots=True, kw_only=True)
class TraceRecorder:
    """keep: how many rollouts stay on disk. keeps_all: those that succeeded too. written: the files, oldest first.

    `playwright show-trace <file>` shows a trace step by step.
    """

    folder: Path
    keep: int = 20
    keeps_all: bool = False
    written: list[tuple[Path, Path]] = field(default_factory=list)
    _number: int = 0
    _names: str = field(default_factory=lambda: f"{time.strftime('%m%dT%H%M%S')}-{os.getpid()}")

    async def start(self, tab: Tab) -> None:
        """Begin to record what happens in the tab's context."""
        with attribute("trace"):
            await tab.context.tracing.start(screenshots=True, snapshots=True)

    async def stop(self, tab: Tab, task: Task, outcome: Outcome) -> None:
        """End the recording; keep it where the rollout asks for it."""
        self._number += 1
        name = re.sub(r"[^\w.-]+", "_", f"{task.id}-{self._names}-{self._number}")
        trace, picture = self.folder / f"{name}.zip", self.folder / f"{name}.png"
        is_kept = self.keeps_all or not outcome.is_success
        with attribute("trace"):
            if is_kept:
                self.folder.mkdir(parents=True, exist_ok=True)
                await tab.page.screenshot(path=picture, full_page=True)
            await tab.context.tracing.stop(path=trace if is_kept else None)
        if is_kept:
            self.written.append((trace, picture))
            self._drop_old()

    def _drop_old(self) -> None:
        """Keep the newest of the folder, those of earlier sessions included."""
        ours = (path for path in self.folder.glob("*.zip") if _OURS.search(path.name))
        traces = sorted(ours, key=lambda path: path.stat().st_mtime_ns)
        for trace in traces[: -self.keep]:
            trace.unlink(missing_ok=True)
            trace.with_suffix(".png").unlink(missing_ok=True)
        self.written = [pair for pair in self.written if pair[0] not in traces[: -self.keep]]
