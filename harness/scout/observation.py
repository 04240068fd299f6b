"""What the page's script reports as records: controls as they were seen, and what tells two of them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dllm_rl.records.tasks import Condition, Control, ControlKind

_KNOWN_BY_NAME = frozenset({"radio", "checkbox", "button", "link"})
CHOICES = frozenset({"select", "multiselect", "radio", "checkbox"})


@dataclass(frozen=True, slots=True)
class Key:
    """Identity of a control on its page: options of a group share a field and differ by name."""

    kind: ControlKind
    field: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One visible control, before it has a ref."""

    kind: ControlKind
    name: str
    group: str
    options: tuple[str, ...]
    required: bool
    disabled: bool
    value: str
    field: str

    @classmethod
    def read(cls, record: dict[str, Any]) -> Seen:
        """Read one entry of the inventory."""
        return cls(**{**record, "options": tuple(record["options"])})

    @property
    def key(self) -> Key:
        """What finds this control again when its label or value has changed."""
        is_named = self.kind in _KNOWN_BY_NAME or not self.field
        return Key(kind=self.kind, field=self.field, name=self.name if is_named else "")

    def control(self, ref: str, condition: Condition | None) -> Control:
        """The control as a policy observes it."""
        return Control(
            ref=ref,
            kind=self.kind,
            name=self.name,
            group=self.group,
            options=self.options,
            required=self.required,
            disabled=self.disabled,
            value=self.value,
            condition=condition,
            field=self.field,
        )


def key_of(record: dict[str, Any]) -> Key:
    """Key of a deciding control as the exploration names it."""
    is_named = record["kind"] in _KNOWN_BY_NAME or not record["field"]
    return Key(kind=record["kind"], field=record["field"], name=record["name"] if is_named else "")
