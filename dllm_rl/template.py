"""The one prompt template: task and page as text. Warm start, reinforcement learning and evaluation all use it."""

from __future__ import annotations

from dllm_rl.records.tasks import Control, Page, Task


def render_prompt(task: Task, page: Page) -> str:
    """Write the instruction, then every control of every page in reading order, one a line."""
    lines = [f"task: {task.instruction or page.instruction}"]
    number = 0
    for control in page.controls:
        if control.page_number != number:
            number = control.page_number
            title = page.titles[number - 1] if number <= len(page.titles) else ""
            lines.append(f"page {number}: {title}")
        lines.append(render_control(control))
    lines.append("plan:\n")
    return "\n".join(lines)


def render_control(control: Control) -> str:
    """Write one control: ref, name, kind and what it offers, its state, and when it appears.

    The name stands right behind the ref, since binding the two is what a policy must learn first.
    """
    parts = [control.ref, control.name, ":", control.kind]
    if control.group:
        parts.append(control.group)
    if control.options:
        parts.append(" | ".join(control.options))
    if control.value and control.kind in ("radio", "checkbox"):
        parts.append("(checked)")
    elif control.value and control.kind not in ("button", "link", "select", "multiselect"):
        parts.append(f"(now {control.value})")
    if control.required:
        parts.append("*")
    if control.disabled:
        parts.append("(disabled)")
    if control.condition is not None:
        parts.append(f"(appears when {control.condition.ref} = {control.condition.value})")
    return " ".join(parts)
