"""A policy around a bare model, as `model.generate` hands it over: its configuration's facts, or given ids."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, PreTrainedTokenizerFast

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.facts import PolicyFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """Stands in for a tokenizer where nothing is spelt: the special ids, and how many ids may be written."""

    eos_token_id: int
    pad_token_id: int
    mask_token_id: int | None
    num_ids: int

    def __len__(self) -> int:
        return self.num_ids

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """No text is known here."""
        return []


def policy_of(
    model: Any, generation_config: GenerationConfig, *, num_columns: int | None, mask_id: int | None, family: str | None
) -> BasePolicy:
    """The policy that writes `num_columns` columns with this model (None: its own number, or 128).

    Facts come from the model's configuration (`policy`, which `save_policy` writes), special ids from the tokenizer
    beside its weights, or else from the arguments, the generation configuration and the model's configuration.
    Raises ConfigError where an id that is needed is nowhere to be found.
    """
    stored = dict(getattr(model.config, "policy", None) or {})
    facts = PolicyFacts.from_dict({"family": family or "masked", **stored})
    if family is not None and family != facts.family:
        raise ConfigError(f"family='{family}' was given, and the model's configuration says '{facts.family}'")
    columns = num_columns or (facts.canvas_length if stored else 128)
    refuse_too_long(model, columns)
    facts = replace(facts, canvas_length=columns, mask_id=facts.mask_id if mask_id is None else mask_id)
    tokenizer = _tokenizer_beside(str(getattr(model, "name_or_path", "") or "")) if stored else None
    if tokenizer is None:
        tokenizer, facts = _ids(model, generation_config, facts), replace(facts, line_width=None)
    return registry.get("policy", facts.family)(model, tokenizer, facts)


def refuse_too_long(model: Any, columns: int) -> None:
    """Raise where a model numbers its columns and has not so many."""
    limit = getattr(model.config, "num_columns", 0)
    if limit and columns > limit:
        raise ConfigError(
            f"max_new_tokens={columns}: this model's canvas has {limit} columns. Ask for at most {limit}."
        )


@functools.lru_cache(maxsize=8)
def _tokenizer_beside(path: str) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(path) if (Path(path) / "tokenizer.json").is_file() else None


def _ids(model: Any, generation_config: GenerationConfig, facts: PolicyFacts) -> TokenIds:
    eos = end_ids(generation_config)
    pad = generation_config.pad_token_id
    mask = facts.mask_id if facts.mask_id is not None else getattr(model.config, "mask_token_id", None)
    if not eos:
        raise ConfigError("the end of a text has no id here: give eos_token_id to generate()")
    if mask is None and registry.get("policy", facts.family).needs_mask:
        raise ConfigError("a masked diffusion model writes over a mask token: give mask_token_id to generate()")
    return TokenIds(
        eos_token_id=eos[0],
        pad_token_id=eos[0] if pad is None else int(pad),
        mask_token_id=mask,
        num_ids=int(model.config.vocab_size),
    )


def end_ids(generation_config: GenerationConfig) -> list[int]:
    """Ids that end a text; the first is the one that rows are stopped by."""
    given = generation_config.eos_token_id
    return [] if given is None else [given] if isinstance(given, int) else [int(token) for token in given]
