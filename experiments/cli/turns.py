"""How a command has a policy play episodes: what it reads of earlier turns, what it keeps, and which roles write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dllm_rl.environment import Environment
from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from experiments.cli.trained import Trained
from experiments.design.base import Component
from experiments.design.config import validate
from experiments.design.overrides import read_yaml
from experiments.design.turn_refusals import grammar_in_episodes, has_grammar
from experiments.design.turns import NotebookSettings, RepairSettings, RolesSettings

if TYPE_CHECKING:
    from dllm_rl.policies.base import BasePolicy
    from dllm_rl.repair import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOptions:
    """What a command says of turns; None for what the policy was trained with, and for any other policy the usual.

    Attributes:
        notebook: As YAML.
        repair: As YAML; `null` for none.
        roles: Likewise.
    """

    notebook: str | None = None
    repair: str | None = None
    roles: str | None = None

    def refuse_given(self, why: str) -> None:
        """Raise ConfigError where any of them was given."""
        given = [f"--{name}" for name in ("notebook", "repair", "roles") if getattr(self, name) is not None]
        if given:
            raise ConfigError(f"{', '.join(given)} was given: {why} Leave it out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """What a policy reads of earlier turns, how much of its last plan it begins one with, and who writes it."""

    notebook: Notebook
    repair: Repair | None
    roles: RolesSettings | None = None


def turns_of(
    checkpoint: str, policy: BasePolicy, options: TurnOptions, *, environment: Environment, sampler: Component
) -> Turns:
    """How a policy plays: as the options say, else as its cell was trained, else as usual.

    Raises ConfigError for what is not valid, for options where whole plans are written, and for a grammar in episodes.
    """
    name = type(environment).__name__
    if not environment.is_episodic:
        options.refuse_given(f"{name} runs a whole plan at once: it has no turns.")
        return Turns(notebook=Notebook(), repair=None, roles=None)
    if has_grammar(sampler):
        raise grammar_in_episodes(f"sampler '{sampler.name}' with grammar=true", name)
    trained = Trained.of(checkpoint)
    notebook, repair, roles = trained.notebook, trained.repair, trained.roles_on(str(policy.device))
    if options.notebook is not None:
        data = _read(options.notebook, "--notebook", "{memory: actions, feedback: false}")
        notebook = validate(NotebookSettings, data, source="--notebook")
    if options.repair is not None:
        data = _read(options.repair, "--repair", "{confidence: 0.9}")
        repair = None if data is None else validate(RepairSettings, data, source="--repair")
    if options.roles is not None:
        data = _read(options.roles, "--roles", "{grounder: false}")
        roles = None if data is None else validate(RolesSettings, data, source="--roles")
    if repair is not None:
        from dllm_rl.repair import refuse_repair
        from dllm_rl.training.calls import repaired_in_roles

        refuse_repair(policy.family, is_aligned=policy.facts.line_width is not None)
        if roles is not None:
            raise repaired_in_roles()
    return Turns(notebook=notebook.build(), repair=None if repair is None else repair.build(), roles=roles)


def _read(text: str, option: str, example: str) -> Any:
    return read_yaml(text, source=f"{option} {text}", advice=f"Write {example}.")
