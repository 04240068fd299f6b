"""The state itself in place of an inferred instruction: needs no training, and is what a trained inverter must beat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dllm_rl.registry import register

# The end of a clause before what reads as another field: in a value, it would make one field pass for two.
_ENDS = re.compile(r"(?:;|[.!?](?=\s))(?=[^;.!?]*:)")


@register("inverter", "plain")
@dataclass(frozen=True, slots=True, kw_only=True)
class PlainInverter:
    """Writes `label: value; label: value`. Good where instructions list labels and values, and blind to other words."""

    version: ClassVar[int] = 2
    knows_likelihood: ClassVar[bool] = False

    @property
    def folder(self) -> Path | None:
        """It has no files."""
        return None

    def of_policy(self, policy: Any) -> PlainInverter:
        """The same: it does not depend on the policy that is rewarded."""
        return self

    def ingredients(self) -> list[Any]:
        """Nothing else decides what it writes."""
        return []

    def write(self, states: Sequence[str]) -> list[str]:
        """Return the lines of each state as clauses."""
        return ["; ".join(_ENDS.sub(",", line) for line in state.split("\n")) for state in states]

    def normalized_pmi(self, states: Sequence[str], instructions: Sequence[str]) -> list[float | None]:
        """It knows no likelihood."""
        raise NotImplementedError
