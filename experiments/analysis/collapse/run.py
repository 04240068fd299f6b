"""A run as detectors see it: rows of metrics under uniform names, and what more than one of them reads of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from experiments.analysis.collapse import detectors, rewards
from experiments.analysis.collapse.departures import OUTCOMES
from experiments.analysis.collapse.detectors import Alarm
from experiments.analysis.collapse.series import Pace, Series, component_names, read_series


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as detectors see it: rows under uniform names, and how they were logged.

    Attributes:
        is_over: It does not train on.
    """

    rows: Sequence[Mapping[str, Any]]
    pace: Pace
    is_over: bool

    def series(self, name: str) -> Series:
        """One metric; empty where it is not logged."""
        return read_series(self.rows, name)

    @cached_property
    def without_spread(self) -> Series:
        """Share of groups without different rewards, as far as it is known."""
        return rewards.without_spread(self.rows)

    @cached_property
    def parts(self) -> tuple[Series, ...]:
        """Parts of the reward."""
        return tuple(self.series(name) for name in component_names(self.rows))

    @cached_property
    def falls(self) -> tuple[Alarm, ...]:
        """Falls of reward and success."""
        scales = {"reward": rewards.scale_of(self.rows), "success": detectors.NO_SCALE}
        found = (detectors.drawdown(self.series(name), self.pace.window, scale=scales[name]) for name in OUTCOMES)
        return tuple(alarm for alarm in found if alarm is not None)
