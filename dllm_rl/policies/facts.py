"""What a checkpoint says of itself: the facts that a policy is built from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from dllm_rl.errors import unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFacts:
    """Facts of a checkpoint, stored in its config.json under `policy`.

    A family with facts of its own derives from this class and names it as its policy's `facts_class`.

    family: name of the policy family.
    max_prompt: longest prompt in tokens; longer ones are refused, never cut.
    canvas_length: columns of the canvas.
    line_width: columns of a line; None for free-running lines.
    slot_size: tokens of a slot (slot family).
    block_size: tokens of a block (block family).
    block_sizes: sizes that a warm start samples from, if the policy knows several.
    is_prompt_causal: within the prompt each token reads those before it, else all of them (block family).
    schedule_power: kappa_t = t ** power, as trained (flow family).
    is_shifted: logits at position i are of token i + 1 in a bidirectional model (Dream).
    mask_id: id of MASK. Default: the tokenizer's.
    """

    family: str
    max_prompt: int = 384
    canvas_length: int = 128
    line_width: int | None = None
    slot_size: int = 4
    block_size: int = 32
    block_sizes: tuple[int, ...] = ()
    is_prompt_causal: bool = False
    schedule_power: float = 1.0
    is_shifted: bool = False
    mask_id: int | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read facts; unknown keys are refused."""
        known = {item.name for item in fields(cls)}
        for key in values:
            if key not in known:
                raise unknown_name("policy fact", key, known)
        # A file has lists where facts are tuples.
        given: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        return asdict(self)
