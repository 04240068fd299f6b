"""What an engine is asked and what it answers; its answers as the record of a sampler.

An engine draws left to right with kernels of its own, so that its log-probabilities are those of the policy up to
rounding. The record keeps the engine's: what they are off by is a metric of every step
(`sampling_logp_difference`), and `dllm_rl.training.correction` weighs it.

Legend: b rows, l canvas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from dllm_rl.errors import ConfigError
from dllm_rl.policies.autoregressive import AutoregressivePolicy
from dllm_rl.policies.head import without_adapter
from dllm_rl.records.types import Completions, Prompts
from dllm_rl.seeding import derive
from samplers.loop.record import Recorder


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is to be written.

    Attributes:
        prompts: Token ids of each row.
        seeds: Of the noise of each row.
        temperature: 0 for the most likely tokens.
        max_tokens: Of a row, where it does not end before.
        eos_id: Token that ends a row, and is part of it.
        banned_ids: Tokens that are never written.
    """

    prompts: tuple[tuple[int, ...], ...]
    seeds: tuple[int, ...]
    temperature: float
    max_tokens: int
    eos_id: int
    banned_ids: tuple[int, ...]

    @classmethod
    def of(cls, policy: AutoregressivePolicy, prompts: Prompts, *, temperature: float, seed: int) -> Request:
        """That of a policy whose canvases are empty."""
        rows = zip(prompts.ids, prompts.mask, strict=True)
        return cls(
            prompts=tuple(tuple(ids[mask].tolist()) for ids, mask in rows),
            seeds=tuple(derive(seed, "engine", number) for number in prompts.row_ids.tolist()),
            temperature=temperature,
            max_tokens=policy.facts.canvas_length,
            eos_id=policy.canvas.eos_id,
            banned_ids=policy.banned_ids,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One row.

    Attributes:
        tokens: Up to and including EOS.
        log_probs: Of each token under what it was drawn from: without banned tokens, at the temperature (at 0, of the
            distribution at 1).
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]


class Engine(Protocol):
    """Writes with a policy's present weights. A dataclass, whose fields are its options."""

    @property
    def name(self) -> str:
        """What it is called in settings."""
        ...

    def require(self) -> None:
        """Raise ConfigError where its package is not installed."""
        ...

    def write(self, policy: AutoregressivePolicy, request: Request) -> list[Written]:
        """Write one row a prompt with the policy's present weights.

        Raises ConfigError for a policy that it cannot run, and where it fails.
        """
        ...


def stock_model(policy: AutoregressivePolicy, engine: str) -> Any:
    """The policy's model, under its adapter. Raises ConfigError where it is not one that engines know."""
    # Imported here: whoever lists samplers or resolves a preset runs no model.
    from transformers import PreTrainedModel

    model = without_adapter(policy.model)
    if not (isinstance(model, PreTrainedModel) and model.is_backend_compatible()):
        raise ConfigError(
            f"engine '{engine}' was given for {type(model).__name__}, and it runs stock decoders of transformers. "
            "Leave the engine out, or take a checkpoint of a stock decoder."
        )
    if len(policy.facts.end_ids) > 1:
        raise ConfigError(
            f"engine '{engine}' was given for a policy with the ends {list(policy.facts.end_ids)}, which count as one, "
            "and an engine gives the probability of each alone. Name one of them: facts.end_ids: [ID]."
        )
    return model


def completed(
    policy: AutoregressivePolicy, request: Request, written: Sequence[Written], *, engine: str
) -> Completions:
    """The record of what an engine wrote: one step a column.

    Engines tell no entropies. The surprisal of the draw, whose mean is the entropy, stands in their place. Forwards are
    counted as if each were of one column of all rows.
    """
    refuse_broken(request, written, engine=engine)
    lengths = torch.tensor([len(row.tokens) for row in written])
    canvas = policy.empty_canvas(len(written))
    is_drawn = torch.arange(canvas.shape[1]) < lengths[:, None]
    canvas[is_drawn] = torch.tensor([token for row in written for token in row.tokens])
    log_probs = torch.tensor([value for row in written for value in row.log_probs])
    record = Recorder(canvas, keeps_states=False)
    row, column = is_drawn.nonzero(as_tuple=True)
    record.commit_at(row, column, column, canvas[row, column], log_probs, -log_probs)
    num_steps = int(lengths.max())
    record.nfe = num_steps
    record.token_forwards = sum(map(len, request.prompts)) + int((lengths - 1).sum())
    return record.finish(policy, canvas, num_steps=num_steps, is_approximate=True)


def refuse_broken(request: Request, written: Sequence[Written], *, engine: str) -> None:
    """Raise ConfigError where an engine wrote something else than it was asked to."""
    if len(written) != len(request.prompts):
        raise ConfigError(f"engine '{engine}' wrote {len(written)} rows; {len(request.prompts)} were asked for.")
    banned = set(request.banned_ids)
    for number, row in enumerate(written):
        is_ended = row.tokens[-1:] == (request.eos_id,) and len(row.tokens) <= request.max_tokens
        is_whole = request.eos_id not in row.tokens[:-1] and (is_ended or len(row.tokens) == request.max_tokens)
        is_scored = len(row.log_probs) == len(row.tokens) and all(map(math.isfinite, row.log_probs))
        if not (is_whole and is_scored) or banned & set(row.tokens):
            raise ConfigError(
                f"engine '{engine}' wrote row {number} with the {len(row.tokens)} tokens {row.tokens[:8]} ... and "
                f"{len(row.log_probs)} log-probabilities; expected up to {request.max_tokens} tokens, none of them "
                "banned, the last one EOS where there are fewer, and a finite log-probability of each. Leave the "
                "engine out, or take a version of it that is known to work."
            )
