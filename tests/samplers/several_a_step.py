"""Options with which rules unmask several tokens a step; with their usual ones random weights give about one."""

from __future__ import annotations

from typing import Any

QUOTA = ("low_confidence", "random", "margin", "entropy", "annealed", "rcr", "remdm", "ancestral")
SEVERAL_A_STEP: dict[str, dict[str, Any]] = {name: {"num_steps": 12} for name in QUOTA} | {
    "threshold": {"threshold": 0.05},
    "soft_threshold": {"threshold": 0.05, "spread": 0.5},
    "revise": {"threshold": 0.05},
    "smc": {"threshold": 0.05, "num_particles": 3},
    "rpd": {"threshold": 0.4, "least_confidence": 0.05, "stability": 1.5, "budget": 100.0},
    "factor": {"factor": 5.0},
    "entropy_bound": {"gamma": 20.0},
    "klass": {"confidence": 0.03, "max_kl": 1.0},
}
