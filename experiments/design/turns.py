"""Settings of the turns of episodes: what is read of earlier ones, what one is begun with, and which roles write it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.load_options import LoadOptions
from dllm_rl.notebook import Memory, Notebook
from dllm_rl.roles import Roles
from experiments.design.base import Component, Strict

if TYPE_CHECKING:
    from dllm_rl.repair import Repair


class _Buildable(Strict):
    """Settings that are refused where what they describe cannot be built."""

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        try:
            self.build()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def build(self) -> Any:
        """What they describe. Raises ConfigError."""
        raise NotImplementedError


class NotebookSettings(_Buildable):
    """What a policy reads of earlier turns in episodes; see `dllm_rl.notebook.Notebook`."""

    memory: Memory = "full"
    feedback: bool = True
    num_observations: int = Field(default=1, ge=1)

    def build(self) -> Notebook:
        """The notebook itself."""
        return Notebook(memory=self.memory, feedback=self.feedback, num_observations=self.num_observations)


class RepairSettings(Strict):
    """How much of its last plan a turn of an episode begins with; see `dllm_rl.repair.Repair`."""

    confidence: float = Field(default=0.0, ge=0, lt=1)

    def build(self) -> Repair:
        """The repair itself."""
        from dllm_rl.repair import Repair

        return Repair(confidence=self.confidence)


class OwnPolicy(LoadOptions):
    """A policy that a role has of its own. It is asked, and not trained, so that keys of training are refused.

    How its weights are loaded (device, dtype, attention, revision, trust_remote_code) are keys of it too.

    Attributes:
        checkpoint: As in a level of policies.
        facts: Likewise.
    """

    checkpoint: str
    sampler: Component
    facts: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _refuse_training(self) -> Self:
        if given := self.of_training:
            raise ValueError(
                f"{', '.join(given)} is about training, and a policy that a role has of its own is not trained. Leave "
                "it out"
            )
        return self


class RoleSwitches(_Buildable):
    """The roles that write a turn of an episode; see `dllm_rl.roles.Roles`."""

    reflector: bool = True
    planner: bool = True
    grounder: bool = True
    summarizer: bool = True

    def build(self) -> Roles:
        """The switches themselves."""
        return Roles(reflector=self.reflector, planner=self.planner, grounder=self.grounder, summarizer=self.summarizer)


class RolesSettings(RoleSwitches):
    """The roles, and who writes in them.

    Attributes:
        own: Policies of their own that roles have. The planner has none: it is the policy that is trained.
    """

    own: dict[Literal["reflector", "grounder", "summarizer"], OwnPolicy] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _refuse_unasked(self) -> Self:
        if unasked := sorted(set(self.own) - set(self.build().names)):
            raise ValueError(f"own names {', '.join(unasked)}, which is switched off. Leave it out")
        return self


def identity_of_turns(
    notebook: NotebookSettings, repair: RepairSettings | None, roles: RolesSettings | None
) -> dict[str, Any]:
    """What of these settings a result depends on: nothing, where all are as usual."""
    known: dict[str, Any] = {}
    if notebook != NotebookSettings():
        known["notebook"] = notebook.model_dump(mode="json")
    if repair is not None:
        known["repair"] = repair.model_dump(mode="json")
    if roles is not None:
        own = {name: _identity(item) for name, item in roles.own.items()}
        known["roles"] = {**roles.model_dump(mode="json", exclude={"own"}), **({"own": own} if own else {})}
    return known


def _identity(own: OwnPolicy) -> dict[str, Any]:
    from dllm_rl.policies.checkpoints import checkpoint_digest

    return {
        "checkpoint": checkpoint_digest(own.checkpoint),
        "facts": own.facts,
        **({"loading": own.loading.deciding} if own.loading.deciding else {}),
        "sampler": registry.identity("sampler", own.sampler.name, own.sampler.options),
    }
