"""The policies of text toys, `toy:<environment>`: which families a toy has, and how long each is warm-started."""

from __future__ import annotations

from typing import Any

from dllm_rl import registry
from dllm_rl.errors import ConfigError, unknown_name
from dllm_rl.load_options import LoadOptions

TOY = "toy:"
# Canvas and number of warm-start steps: enough that a policy is right in part, so that there is something to gain.
CANVAS = {"toy_sort": 8, "toy_copy": 32}
# Where answers have fixed columns, the model is told the column; sorting is too easy with it.
NUM_COLUMNS = {"toy_sort": 0, "toy_copy": 32}
WARM_STEPS = {
    "toy_sort": {"autoregressive": 75, "masked": 110, "slot": 110, "flow": 180},
    "toy_copy": {"autoregressive": 300, "masked": 350, "slot": 330, "flow": 500},
}


def toy_family(checkpoint: str, facts: dict[str, Any]) -> str:
    """The family of a toy's policy. Raises ConfigError for a toy that does not exist and for other facts."""
    name = checkpoint.removeprefix(TOY)
    if name not in CANVAS:
        raise unknown_name("toy", name, CANVAS)
    family = facts.get("family")
    known = [other for other in registry.names("policy") if warm_steps(name, other)]
    if family not in known or set(facts) != {"family"}:
        raise ConfigError(f"checkpoint '{checkpoint}' takes facts: {{family: one of {', '.join(known)}}}")
    return str(family)


def refuse_loading(checkpoint: str, options: LoadOptions) -> None:
    """Raise ConfigError for options of loading, which a toy's policy does not have."""
    if given := ", ".join(options.model_dump(exclude_defaults=True, exclude={"shards", "optimiser"})):
        raise ConfigError(f"'{checkpoint}' is made here, on the CPU; {given} would have no effect. Leave it out.")


def warm_steps(name: str, family: str) -> int | None:
    """Warm-start steps of the family, or of the one that it derives from; None where the toy has none."""
    lineage = registry.get("policy", family).lineage()
    return next((WARM_STEPS[name][ancestor] for ancestor in lineage if ancestor in WARM_STEPS[name]), None)
