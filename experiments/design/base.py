"""What all settings of a preset are made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strict(BaseModel):
    """Base of every configuration model: frozen; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(Strict):
    """A registered plug-in and its options. `grpo` is short for `{name: grpo}`."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data
