"""What environments share whose pages are not ours: a proxy keeps what their application receives, which is the truth.

`environment.py` observes and runs, `observed.py` reads what was sent. `canonical.py` finds the controls of a key and
turns its value into what they can hold (`written.py`: as it is typed, `options.py`: as it is chosen), `gold.py` does so
for a record, and `oracle.py` writes the plan. `application.py` runs a
Python application in a process of its own (`launch.py`).
"""

from harness.environments.recorded.application import ApplicationProcess
from harness.environments.recorded.canonical import find_controls, is_nothing, num_boxes, wanted_values
from harness.environments.recorded.environment import RecordedEnvironment, RecordedSettings
from harness.environments.recorded.gold import Unsolvable, gold_of, own_part, spoken
from harness.environments.recorded.links import linked_forms
from harness.environments.recorded.observed import Observed
from harness.environments.recorded.oracle import oracle_plan
from harness.environments.recorded.written import FORMATS, CannotHoldError

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
    "num_boxes",
    "oracle_plan",
    "own_part",
    "spoken",
    "wanted_values",
]
