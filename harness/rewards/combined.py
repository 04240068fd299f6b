"""Rewards made of rewards: a base in full, others on top with a weight that may change over training, behind gates.

reward:
  name: combined
  options:
    base: {reward: outcome}
    shaping: [{reward: rule_tree, options: {order: strict}, weight: {start: 0.2, end: 0, steps: 100}}]
    gates: [{reward: well_formed, at_least: 1}]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.options import unkeyed
from dllm_rl.records.evidence import Evidence
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score, scores

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """A weight that goes linearly from `start` at step 0 to `end` at step `steps`, and stays there."""

    __pydantic_config__: ClassVar = _STRICT

    start: Annotated[float, Field(ge=0)]
    end: Annotated[float, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]

    def at(self, step: int) -> float:
        """The weight at a training step."""
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """The reward that is paid in full, by its registered name."""

    __pydantic_config__: ClassVar = _STRICT

    reward: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """A reward that is paid on top.

    Attributes:
        weight: What it is worth beside the base; a ramp changes it over training.
    """

    __pydantic_config__: ClassVar = _STRICT

    reward: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: Annotated[float, Field(ge=0)] | Ramp = 0.2

    @property
    def most(self) -> float:
        """The highest weight that it ever has."""
        return max(self.weight.start, self.weight.end) if isinstance(self.weight, Ramp) else self.weight

    @property
    def last(self) -> float:
        """The weight that it ends with."""
        return self.weight.end if isinstance(self.weight, Ramp) else self.weight

    def at(self, step: int) -> Shaping:
        """The same at a training step, its weight a number."""
        return replace(self, weight=self.weight.at(step)) if isinstance(self.weight, Ramp) else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A condition for being paid at all: another reward's value must be at least this."""

    __pydantic_config__: ClassVar = _STRICT

    reward: str
    options: Mapping[str, Any] = field(default_factory=dict)
    at_least: Annotated[float, Field(gt=0, le=1)] = 1.0


@register("reward", "combined")
@dataclass(frozen=True, kw_only=True)
class Combined(Reward):
    """Gates x (base + sum of weight x shaping) / (1 + sum of weights).

    The weights must sum to less than 1 at every step. Where the base is 0 or 1, as success is, and every gate is open
    to every success, the best failure then earns less than the worst success. A gate that can close on a success, such
    as `well_formed` on one with a stray line, pays it nothing, which a failure may exceed.

    Built, it has the weights that its ramps end with; `at` gives it those of a training step. Its
    claim is the base's, and 0 behind a closed gate.

    Attributes:
        base: What is paid in full.
        shaping: What is paid on top.
        gates: What must hold for anything to be paid.
    """

    version: ClassVar[int] = 1

    # Results are keyed by the parts as `ingredients` lists them.
    base: Base = unkeyed()
    shaping: tuple[Shaping, ...] = unkeyed(())
    gates: tuple[Gate, ...] = unkeyed(())

    def __post_init__(self) -> None:
        total = sum(item.most for item in self.shaping)
        if total >= 1:
            raise ConfigError(
                f"the weights of `shaping` sum to {total:g}; expected less than 1, or they outweigh the base."
            )
        if not self.shaping and not self.gates:
            raise ConfigError("neither `shaping` nor `gates` was given; take the reward of `base` itself.")
        # A part that cannot be made is refused before anything runs.
        _ = self._parts

    @cached_property
    def _parts(self) -> tuple[Reward, ...]:
        named = (self.base, *self.shaping, *self.gates)
        return tuple(registry.build("reward", item.reward, item.options) for item in named)

    @property
    def needs_truth(self) -> bool:  # type: ignore[override]
        """Whether any part needs it; the others do not get it."""
        return any(part.needs_truth for part in self._parts)

    @property
    def needs_return(self) -> bool:  # type: ignore[override]
        """Whether any part passes on what the environment pays."""
        return any(part.needs_return for part in self._parts)

    def at(self, step: int) -> Combined:
        """The reward as it pays at a training step. Its parts are the same ones, with the models that they hold."""
        changed = copy(self)
        shaping = tuple(item.at(step) for item in self.shaping)
        vars(changed).update(shaping=shaping, _parts=tuple(part.at(step) for part in self._parts))
        return changed

    def of_policy(self, policy: Any) -> Combined:
        """The reward with its parts as they pay what this policy does."""
        changed = copy(self)
        vars(changed).update(_parts=tuple(part.of_policy(policy) for part in self._parts))
        return changed

    def ingredients(self) -> list[Any]:
        """Of every part its name, version, options and ingredients, and its weight or how high its gate is."""
        named = (self.base, *self.shaping, *self.gates)
        return [
            [registry.identity("reward", item.reward, item.options), part.ingredients(), _place(item)]
            for item, part in zip(named, self._parts, strict=True)
        ]

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Score every part, and put the scores of each episode together."""
        by_part = [scores(part, episodes) for part in self._parts]
        return [self._together([found[row] for found in by_part]) for row in range(len(episodes))]

    def _together(self, found: Sequence[Score]) -> Score:
        fault = next((score.fault for score in found if score.fault), "")
        if fault:
            return Score(fault=fault)
        base, shaped, gates = found[0], found[1 : 1 + len(self.shaping)], found[1 + len(self.shaping) :]
        is_open = all(score.value >= gate.at_least for gate, score in zip(self.gates, gates, strict=True))
        weights = [item.last for item in self.shaping]
        paid = sum(weight * score.value for weight, score in zip(weights, shaped, strict=True))
        value = (base.value + paid) / (1 + sum(weights)) if is_open else 0.0
        claim = base.claim if is_open or base.claim is None else 0.0
        return Score(value=value, claim=claim, components=self._components(found, is_open=is_open))

    def _components(self, found: Sequence[Score], *, is_open: bool) -> dict[str, float]:
        """Values of the parts by the name of their reward, numbered where a name comes again."""
        named = [self.base.reward, *(item.reward for item in self.shaping)]
        values: dict[str, float] = {}
        for name, score in zip(named, found, strict=False):
            again = sum(known.partition("#")[0] == name for known in values)
            values[f"{name}#{again + 1}" if again else name] = score.value
        return values | ({"gates": float(is_open)} if self.gates else {})


def _place(part: Base | Shaping | Gate) -> Any:
    """A part's place in the whole: the base has none, a shaping has its weight, and a gate its threshold."""
    if isinstance(part, Base):
        return None
    if isinstance(part, Gate):
        return {"at_least": part.at_least}
    return {"weight": asdict(part.weight) if isinstance(part.weight, Ramp) else part.weight}
