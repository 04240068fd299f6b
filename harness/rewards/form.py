"""What rewards that read the final state ask of an episode's form: every line an action, and no field that echoes."""

from __future__ import annotations

from dllm_rl.records.evidence import Evidence, executed_state
from harness.rewards.similarity import longest_echo


def has_form(episode: Evidence, *, max_echo: float) -> bool:
    """Whether something was done, every line is an action, and no field holds an echo of the instruction.

    Args:
        max_echo: Longest run of the instruction that one field may hold, as a share of the instruction.
    """
    actions = episode.actions
    if not actions or any(action.status == "malformed" for action in actions):
        return False
    typed = [entry.value for entry in executed_state(episode) if not entry.control.options]
    return all(longest_echo(episode.instruction, value) <= max_echo for value in typed)
