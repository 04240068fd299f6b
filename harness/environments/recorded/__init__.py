"""What environments share whose pages are not ours: a proxy keeps what their application receives, which is the truth.

`environment.py` observes and runs, `observed.py` reads what was sent. `canonical.py` turns values into what a control
can hold, `gold.py` finds the fields that they belong to, and `oracle.py` writes the plan. `application.py` runs a
Python application in a process of its own (`launch.py`).
"""

from harness.environments.recorded.application import ApplicationProcess
from harness.environments.recorded.canonical import FORMATS, CannotHoldError, find_controls, is_nothing, wanted_values
from harness.environments.recorded.environment import RecordedEnvironment, RecordedSettings
from harness.environments.recorded.gold import Unsolvable, gold_of, own_part, spoken
from harness.environments.recorded.links import linked_forms
from harness.environments.recorded.observed import Observed
from harness.environments.recorded.oracle import oracle_plan

__all__ = [
    "FORMATS",
    "ApplicationProcess",
    "CannotHoldError",
    "Observed",
    "RecordedEnvironment",
    "RecordedSettings",
    "Unsolvable",
    "find_controls",
    "gold_of",
    "is_nothing",
    "linked_forms",
    "oracle_plan",
    "own_part",
    "spoken",
    "wanted_values",
]
