"""Alarms while a run still trains: rows of metrics go in as they are written, new alarms come out once each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dllm_rl.errors import DllmRlError
from dllm_rl.files import write_json
from experiments.analysis.collapse.detectors import Alarm
from experiments.analysis.collapse.diagnosis import diagnose
from experiments.design.config import OnAlarm
from experiments.run.folder import ALARMS_FILE

_LOGGER = logging.getLogger(__name__)


class CollapseError(DllmRlError):
    """Training was to raise on an alarm, and one went off."""


@dataclass(slots=True, kw_only=True)
class OnlineDiagnosis:
    """Watches one run. `observe` returns True where training should stop.

    Attributes:
        on_alarm: What an error or a confirmed collapse does: `log` it, ask to `stop`, or `raise`. Warnings are only
            logged.
        folder: Where alarms.json is kept, if anywhere.
        stop: The alarm that ended the run.
    """

    on_alarm: OnAlarm = "log"
    folder: Path | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    stop: Alarm | None = None

    def observe(self, row: Mapping[str, Any]) -> bool:
        """Take in the metrics of one more step. A step that is done again after an interruption is known already.

        A second row of the last step adds what the first did not have: evaluations are logged after training.
        """
        last = self.rows[-1].get("step", -1) if self.rows else -1
        step = row.get("step", len(self.rows))
        if step == last and not row.keys() <= self.rows[-1].keys():
            self.rows[-1] = {**row, **self.rows[-1]}
        elif step > last:
            self.rows.append(dict(row))
        else:
            return False
        known = {(alarm.detector, alarm.signal) for alarm in self.alarms}
        fresh = [
            alarm for alarm in diagnose(self.rows, is_over=False).alarms if (alarm.detector, alarm.signal) not in known
        ]
        if not fresh:
            return False
        self.alarms += fresh
        for alarm in fresh:
            _LOGGER.warning("%s alarm at step %d: %s", alarm.severity, alarm.raised, alarm.message)
        grave = [alarm for alarm in fresh if alarm.severity != "warning"]
        if grave and self.on_alarm == "stop":
            self.stop = grave[0]
        if self.folder is not None:
            write_json(self.folder / ALARMS_FILE, self.record())
        if grave and self.on_alarm == "raise":
            raise CollapseError(f"on_alarm: raise, at step {grave[0].raised}: {grave[0].message}")
        return self.stop is not None

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> int | None:
        """Take in the steps of an interrupted run, and return the step at which it was stopped, if it was."""
        for row in rows:
            if self.observe(row):
                return int(self.rows[-1].get("step", len(self.rows) - 1))
        return None

    def record(self) -> dict[str, Any]:
        """What alarms.json holds. stopped_at: the last step of a run that an alarm stopped."""
        stopped = self.rows[-1].get("step", len(self.rows) - 1) if self.stop is not None else None
        because = self.stop.message if self.stop is not None else ""
        return {"stopped_at": stopped, "because": because, "alarms": [asdict(alarm) for alarm in self.alarms]}
