"""Records that travel through the system: tasks, plans, outcomes and rollouts, free of torch.

Records of tensors are imported from their modules, so that a browser fleet needs no torch: `records.types` (prompts,
completions, rollouts stacked, views), `records.trajectory`, `records.events` and `records.canvas`.
"""

from dllm_rl.records.plan import Action, ParseError, Plan, parse_plan, render_action, render_plan
from dllm_rl.records.rollout import Completion, RewardFunction, Rollout, Turn
from dllm_rl.records.tasks import (
    SPLITS,
    ActionResult,
    Condition,
    Control,
    Fault,
    FieldResult,
    GoldField,
    Observation,
    Outcome,
    RewardRecord,
    Task,
)

__all__ = [
    "SPLITS",
    "Action",
    "ActionResult",
    "Completion",
    "Condition",
    "Control",
    "Fault",
    "FieldResult",
    "GoldField",
    "Observation",
    "Outcome",
    "ParseError",
    "Plan",
    "RewardFunction",
    "RewardRecord",
    "Rollout",
    "Task",
    "Turn",
    "parse_plan",
    "render_action",
    "render_plan",
]
