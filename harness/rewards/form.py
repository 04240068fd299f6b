"""What rewards that read the final state ask of an episode's form: every line an action, and no field that echoes."""

from __future__ import annotations

import re

from dllm_rl.records.evidence import Entry, Evidence, executed_state
from harness.rewards.similarity import longest_echo


def has_form(episode: Evidence, *, max_echo: float) -> bool:
    """Whether something was done, every line is an action, and no field holds an echo of the instruction.

    Args:
        max_echo: Longest run of the instruction that one field may hold, as a share of the instruction. A value
            that the instruction gives for this very field, as `label: value`, is none.
    """
    actions = episode.actions
    if not actions or any(action.status == "malformed" for action in actions):
        return False
    typed = [entry for entry in executed_state(episode) if not entry.control.options]
    return all(
        longest_echo(episode.instruction, entry.value) <= max_echo or _is_asked_for(episode.instruction, entry)
        for entry in typed
    )


def _is_asked_for(instruction: str, entry: Entry) -> bool:
    """Whether the instruction says `label: value` of a field, however much of it that is; a value holds no label."""
    if re.search(r":(\s|$)", entry.value):
        return False
    label, value = (r"\s+".join(map(re.escape, text.split())) for text in (entry.label, entry.value))
    wish = rf"(?:^|[;.!?\s]){label}\s*:\s+{value}\s*(?:[;.!?\n]|$)"
    return bool(label and re.search(wish, instruction, re.IGNORECASE))
