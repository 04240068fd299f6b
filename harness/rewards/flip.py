"""FLIP (arXiv 2602.13551): infer the instruction that an episode carries out, and compare it with the one given.

The inverter never sees the instruction. Departures from the paper: what is inverted is the executed state of the page
and not the policy's text, so right values in the wrong controls do not pass; a malformed line, and an inverter that
writes nothing, earn nothing (in the paper broken output is scored as it is); what the inverter writes without any
state is subtracted, since the wording that all instructions share earns nothing; and a field that holds a long stretch
of the instruction itself is an echo, which earns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.options import unkeyed
from dllm_rl.records.evidence import Evidence, executed_state, render_state
from dllm_rl.registry import register
from dllm_rl.reward import Reward, Score
from harness.rewards.form import has_form
from harness.rewards.similarity import Similarity, SimilarityName, similarity_named


class Inverter(Protocol):
    """Writes the instructions that states imply. Registered under the kind `inverter`."""

    @property
    def knows_likelihood(self) -> bool:
        """Whether it can be asked for likelihoods (`normalized_pmi`)."""
        ...

    def write(self, states: Sequence[str]) -> list[str]:
        """Return an instruction for each state (`label: value`, one a line; "" for an untouched page), in order."""
        ...

    def normalized_pmi(self, states: Sequence[str], instructions: Sequence[str]) -> list[float | None]:
        """Pointwise mutual information over the instruction's surprise, at most 1; None where it cannot be read."""
        ...

    def of_policy(self, policy: Any) -> Inverter:
        """The inverter of what this policy does; itself where it does not depend on the policy."""
        ...

    def ingredients(self) -> list[Any]:
        """What decides what it writes, as plain data, such as a digest of its weights."""
        ...

    @property
    def folder(self) -> Path | None:
        """Where its files lie, if it has any."""
        ...


_TOO_LONG = "the instruction is longer than the inverter's canvas; train one with a longer canvas, or leave pmi"


@register("reward", "flip")
@dataclass(frozen=True, kw_only=True)
class Flip(Reward):
    """max(0, (F - F0) / (1 - F0)): similarity F of the inferred instruction, F0 of what is inferred from no state.

    With the similarity `pmi` nothing is written: the value is the pointwise mutual information of instruction and state
    as a share of what the instruction says, 1 - log p(x | y) / log p(x), so that a state which fits no better than none
    earns nothing.

    Attributes:
        inverter: Registered name of the inverter: `policy` for a trained one, `plain` to compare the state itself.
        inverter_options: Its options, such as `checkpoint`.
        similarity: `words` as published, `fields` clause by clause, `idf` with rare words weighing more, `pmi` by
            likelihood.
        max_echo: Longest run of the instruction that one field may hold, as a share of the instruction.
    """

    version: ClassVar[int] = 3
    needs_truth: ClassVar[bool] = False

    inverter: str = "policy"
    inverter_options: dict[str, Any] = unkeyed(factory=dict)
    similarity: SimilarityName | Literal["pmi"] = "fields"
    max_echo: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        # Options are checked before anything runs; weights are read when the reward is first asked.
        self._refuse_unknown_likelihoods(self._inverter)
        if self.similarity != "pmi":
            _ = self._alike

    def _refuse_unknown_likelihoods(self, inverter: Inverter) -> None:
        if self.similarity == "pmi" and not inverter.knows_likelihood:
            raise ConfigError(
                f"similarity 'pmi' needs likelihoods, which the inverter '{self.inverter}' does not know. Train one of "
                "the family autoregressive, or take the similarity 'fields'."
            )

    def of_policy(self, policy: Any) -> Flip:
        """The reward with the inverter of this policy; what that wrote of no state before is forgotten with it."""
        inverter = self._inverter.of_policy(policy)
        if inverter is self._inverter:
            return self
        self._refuse_unknown_likelihoods(inverter)
        changed = replace(self)
        vars(changed)["_inverter"] = inverter
        return changed

    @cached_property
    def _inverter(self) -> Inverter:
        return registry.build("inverter", self.inverter, self.inverter_options)

    @cached_property
    def _alike(self) -> Similarity:
        assert self.similarity != "pmi"
        return similarity_named(self.similarity, self._inverter.folder)

    @cached_property
    def _from_nothing(self) -> str:
        return self._inverter.write([""])[0]

    def ingredients(self) -> list[Any]:
        """Identity of the inverter, with its weights."""
        return [registry.identity("inverter", self.inverter, self.inverter_options), self._inverter.ingredients()]

    def score(self, episodes: Sequence[Evidence]) -> list[Score]:
        """Invert all states at once, and compare."""
        states = [
            render_state(executed_state(item)) if has_form(item, max_echo=self.max_echo) else "" for item in episodes
        ]
        pairs = list(dict.fromkeys((state, item.instruction) for state, item in zip(states, episodes, strict=True)))
        filled = [pair for pair in pairs if pair[0]]
        values = dict(zip(filled, self._values(filled), strict=True)) if filled else {}
        found = [values.get((state, item.instruction), 0.0) for state, item in zip(states, episodes, strict=True)]
        return [Score(fault=_TOO_LONG) if value is None else Score(value=value, claim=value) for value in found]

    def _values(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float | None]:
        """What each state is worth for its instruction; None where the inverter cannot read the instruction."""
        if self.similarity == "pmi":
            shares = self._inverter.normalized_pmi([state for state, _ in pairs], [text for _, text in pairs])
            return [None if share is None else max(0.0, share) for share in shares]
        different = sorted({state for state, _ in pairs})
        inferred = dict(zip(different, self._inverter.write(different), strict=True))
        return [self.gain(instruction, inferred[state]) for state, instruction in pairs]

    def gain(self, instruction: str, inferred: str) -> float:
        """Similarity beyond what the inverter writes without any state."""
        usual = self._alike(instruction, self._from_nothing)
        return 0.0 if usual >= 1 else max(0.0, (self._alike(instruction, inferred) - usual) / (1 - usual))
