"""Records that travel through the system: tasks, plans, outcomes and rollouts, free of torch.

Records of tensors are imported from their modules, so that a browser fleet needs no torch: `records.types` (prompts,
completions, rollouts stacked, views), `records.trajectory`, `records.events` and `records.canvas`.
"""

from dllm_rl.records.evidence import Evidence, Truth, executed_state, steps_of
from dllm_rl.records.plan import Action, ParseError, Plan, parse_plan, render_action, render_plan
from dllm_rl.records.rollout import Attempt, Completion, Rollout, Turn, rewarded
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
from dllm_rl.records.truth import accuracy_of, progress_of, submission_of

__all__ = [
    "SPLITS",
    "Action",
    "ActionResult",
    "Attempt",
    "Completion",
    "Condition",
    "Control",
    "Evidence",
    "Fault",
    "FieldResult",
    "GoldField",
    "Observation",
    "Outcome",
    "ParseError",
    "Plan",
    "RewardRecord",
    "Rollout",
    "Task",
    "Truth",
    "Turn",
    "accuracy_of",
    "executed_state",
    "parse_plan",
    "progress_of",
    "render_action",
    "render_plan",
    "rewarded",
    "steps_of",
    "submission_of",
]
