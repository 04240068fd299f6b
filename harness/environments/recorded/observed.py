"""A form that is not ours: how it is told among what its page sends, and what was received of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from dllm_rl.records.plan import Plan
from dllm_rl.records.tasks import Control, Task
from harness.environments.recorded.canonical import find_controls, num_boxes
from harness.recorder import Criterion, Form, Sent, folded
from harness.scout import Surveyed
from harness.sites import Submission

Values = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed(Surveyed):
    """A form that is not ours, as a survey saw it."""

    @classmethod
    def read(cls, seen: Surveyed) -> Observed:
        """What a survey found."""
        return cls(**{item.name: getattr(seen, item.name) for item in dataclasses.fields(seen)})

    def find(self, key: str) -> tuple[Control, ...]:
        """The controls of which a label, an HTML name or a selector speaks; () where there is none."""
        if key not in self.selected:
            return find_controls(key, self.page)
        return tuple(control for control in self.page.controls if control.ref in self.selected[key])

    def opening(self, control: Control) -> tuple[str, ...]:
        """The refs that must be clicked before a control is there."""
        if control.ref in self.clicks:
            return self.clicks[control.ref]
        if control.condition is None or control.condition.value != "open":
            return ()
        opener = self.page.control(control.condition.ref)
        return (*(self.opening(opener) if opener is not None else ()), control.condition.ref)

    @property
    def revealed(self) -> Values:
        """What fields hold that are not there at first, by field."""
        found: dict[str, tuple[str, ...]] = {}
        for control in self.page.controls:
            if control.condition is not None and control.value and control.field:
                value = control.name if control.kind == "radio" else control.value
                found[control.field] = ("on",) if control.kind == "checkbox" else (value,)
        return found

    def form(self, plan: Plan, criterion: Criterion | None) -> Form:
        """How the form is known among what a page sends."""
        spellings: dict[str, str] = {}
        fields = {control.ref: control for control in self.page.controls if control.field and control.kind != "button"}
        for control in fields.values():
            spellings.setdefault(folded(control.group or control.name), control.field)
        for control in fields.values():
            names = (control.field, *self.identities.get(control.field, ()))
            spellings |= dict.fromkeys(names, control.field)
        # A control without a label would stand for whatever has no words.
        spellings.pop("", None)
        given = {fields[action.ref].field for action in plan.actions if action.ref in fields}
        numbers = range(1, len(self.page.titles) + 1) if len(self.page.titles) > 1 else ()
        pages = (frozenset(item.field for item in fields.values() if item.page_number == at) for at in numbers)
        return Form(
            spellings=spellings,
            given=frozenset(given | {name for name, held in self.defaults.items() if held}),
            pages=tuple(pages),
            criterion=criterion,
        )

    def received(self, sent: Sent, task: Task, ignored: frozenset[str]) -> Submission:
        """The payload in visible texts. What a revealed field holds by itself counts as nothing.

        Args:
            sent: The form as it was sent.
            task: The task.
            ignored: Fields whose value does not matter.
        """
        fields: dict[str, tuple[str, ...]] = {
            control.field: () for control in self.page.controls if control.field and control.kind != "button"
        }
        wanted, revealed = {item.name for item in task.gold}, self.revealed
        joined = {control.field for control in self.page.controls if num_boxes(control)}
        for name, values in sent.fields.items():
            texts = self.choices.get(name, {})
            read = tuple(texts.get(value, value) for value in values)
            read = ("".join(read),) if name in joined and read else read
            is_untouched = name not in wanted and read == revealed.get(name)
            fields[name] = () if is_untouched else read
        fields |= {name: self.defaults.get(name, ()) for name in ignored - wanted}
        return Submission(accepted=sent.is_accepted and sent.is_last, fields=fields, errors=sent.complaints)
