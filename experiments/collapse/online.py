"""Alarms while a run still trains: rows of metrics go in as they are written, new alarms come out once each."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.collapse.detectors import Alarm
from experiments.collapse.diagnosis import diagnose

OnAlarm = Literal["log", "stop", "raise"]
_LOGGER = logging.getLogger(__name__)


class CollapseError(RuntimeError):
    """Training was to raise on an alarm, and one went off."""


@dataclass(slots=True, kw_only=True)
class OnlineDiagnosis:
    """Watches one run. `observe` returns True where training should stop.

    on_alarm: what an error or a confirmed collapse does: `log` it, ask to `stop`, or `raise`. Warnings are only logged.
    """

    on_alarm: OnAlarm = "log"
    rows: list[dict[str, Any]] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)

    def observe(self, row: Mapping[str, Any]) -> bool:
        """Take in the metrics of one more step."""
        self.rows.append(dict(row))
        known = {(alarm.detector, alarm.signal) for alarm in self.alarms}
        fresh = [alarm for alarm in diagnose(self.rows).alarms if (alarm.detector, alarm.signal) not in known]
        self.alarms += fresh
        for alarm in fresh:
            _LOGGER.warning("%s alarm at step %d: %s", alarm.severity, alarm.raised, alarm.message)
        grave = [alarm for alarm in fresh if alarm.severity != "warning"]
        if grave and self.on_alarm == "raise":
            raise CollapseError(grave[0].message)
        return bool(grave) and self.on_alarm == "stop"
