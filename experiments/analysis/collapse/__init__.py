"""Collapse diagnosis: what became of a training run, what moved first, and what was looked for and not found."""

from experiments.analysis.collapse.departures import Departure
from experiments.analysis.collapse.detectors import Alarm
from experiments.analysis.collapse.diagnosis import USUAL_CAUSE, Diagnosis, Kind, diagnose, title_of
from experiments.analysis.collapse.watches import Check

__all__ = ["USUAL_CAUSE", "Alarm", "Check", "Departure", "Diagnosis", "Kind", "diagnose", "title_of"]
