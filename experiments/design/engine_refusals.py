"""Engines that cannot write for the policy they were given to: refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dllm_rl.errors import ConfigError
from experiments.design.config import BUILTIN, PolicyLevel, build_sampler, loaded_levels
from experiments.design.toys import TOY

if TYPE_CHECKING:
    from samplers.engines.base import Engine


def engines_of(level: PolicyLevel) -> Iterator[tuple[str, Engine]]:
    """Yield the engines of a level's samplers, by the key of the sampler."""
    from samplers import AutoregressiveSampler

    for key, sampler in (("sampler", level.sampler), ("evaluation_sampler", level.evaluation_sampler)):
        built = None if sampler is None else build_sampler(sampler)
        if isinstance(built, AutoregressiveSampler) and built.engine is not None:
            yield key, built.engine


def refuse_engines(name: str, policy: PolicyLevel) -> None:
    """Raise where a level, or a policy that one of its roles has of its own, has an engine that cannot run it."""
    for place, level in loaded_levels({name: policy}).items():
        for key, engine in engines_of(level):
            given = f"cell {place}: {key} has the engine '{engine.name}'"
            if _is_ours(level.checkpoint):
                raise ConfigError(
                    f"{given}, and '{level.checkpoint}' is the built-in model, which engines do not know: they run "
                    "stock decoders of transformers. Leave the engine out, or take a checkpoint of a stock decoder."
                )
            if level.shards > 1:
                raise ConfigError(
                    f"{given}, and shards={level.shards} divides the weights, which an engine wants whole. Leave one "
                    "of the two out."
                )
            ends = {**level.stated_facts, **level.facts}.get("end_ids", ())
            if len(ends) > 1:
                raise ConfigError(
                    f"{given}, and the policy has the ends {list(ends)}, which count as one; an engine gives the "
                    "probability of each alone. Name one of them: facts.end_ids: [ID]."
                )


def require_engines(owner: str, level: PolicyLevel) -> None:
    """Raise ConfigError where this machine lacks an engine's package.

    Args:
        owner: Whose engines they are, for the message.
    """
    for _, engine in engines_of(level):
        try:
            engine.require()
        except ConfigError as error:
            raise ConfigError(f"{owner}: {error}") from None


def _is_ours(checkpoint: str) -> bool:
    from dllm_rl.policies.checkpoints import is_tiny

    return checkpoint.startswith((BUILTIN, TOY)) or is_tiny(checkpoint)
