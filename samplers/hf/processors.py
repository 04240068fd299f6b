"""Which of transformers' logits processors and stopping criteria mean anything on a canvas, and how they are applied.

Left to right, a processor sees the tokens before one position. On a canvas there is no such prefix: what is stateless
is applied at every position asked about, what truncates a distribution is applied where a token is drawn (rules rank by
the whole one), the temperature goes to the sampler, and what counts or remembers is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import (
    EosTokenCriteria,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinPLogitsWarper,
    StoppingCriteriaList,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from transformers.generation.logits_process import TopHLogitsWarper

from dllm_rl.errors import ConfigError
from dllm_rl.records.types import Prompts
from samplers.loop.context import Watcher

_AT_THE_DRAW = (
    TopKLogitsWarper,
    TopPLogitsWarper,
    TopHLogitsWarper,
    MinPLogitsWarper,
    TypicalLogitsWarper,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
)
_EVERYWHERE = (SuppressTokensLogitsProcessor, InfNanRemoveLogitsProcessor)
_OF_THE_LOOP = (MaxLengthCriteria, EosTokenCriteria)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processors:
    """Processors of one call, sorted.

    Attributes:
        temperature: Product of the temperature warpers.
        everywhere: Applied to the logits of every position asked about.
        at_draw: Applied to the tempered logits of positions that are sampled.
    """

    temperature: float
    everywhere: tuple[Any, ...]
    at_draw: tuple[Any, ...]

    @classmethod
    def of(cls, prepared: LogitsProcessorList, *, do_sample: bool) -> Processors:
        """Sort what `generate` has prepared. Raises ConfigError for processors that need a prefix.

        Classes of other packages are taken as stateless: they are called once a step, one row of scores a position.
        """
        temperatures = [item.temperature for item in prepared if isinstance(item, TemperatureLogitsWarper)]
        everywhere, at_draw = [], []
        for item in prepared:
            if isinstance(item, _AT_THE_DRAW):
                at_draw.append(item)
            elif isinstance(item, (TemperatureLogitsWarper, LogitNormalization)):
                continue
            elif isinstance(item, _EVERYWHERE) or not type(item).__module__.startswith("transformers."):
                everywhere.append(item)
            else:
                raise ConfigError(
                    f"{type(item).__name__} follows the tokens left of a position, and on a canvas tokens are written "
                    "in any order. Remove it, or pass a processor of your own that is stateless."
                )
        return cls(
            temperature=float(math.prod(temperatures)) if do_sample else 0.0,
            everywhere=tuple(everywhere),
            at_draw=tuple(at_draw),
        )

    def refuse_under_grammar(self) -> None:
        """Raise ConfigError if there are any: a banned token could be the only one that the grammar has left."""
        given = [type(item).__name__ for item in (*self.everywhere, *self.at_draw)]
        if given:
            raise ConfigError(
                f"under the grammar no token may be banned, and {', '.join(given)} may do so. Without them (top_k=0, "
                "top_p=1.0), or without grammar=True."
            )

    def process(self, prefix: Int[Tensor, "b t"], logits: Float[Tensor, "b n v"]) -> Float[Tensor, "b n v"]:
        """Apply what applies everywhere; each position is a row of its own, with the whole canvas as its prefix."""
        if not self.everywhere:
            return logits
        scores = logits.flatten(0, 1)
        prefix = prefix.repeat_interleave(logits.shape[1], dim=0).to(logits.device)
        for item in self.everywhere:
            scores = item(prefix, scores)
        return scores.unflatten(0, logits.shape[:2])

    def truncate(self, logits: Float[Tensor, "m v"]) -> Float[Tensor, "m v"]:
        """Apply what truncates a distribution, in the order given."""
        none = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
        for item in self.at_draw:
            logits = item(none, logits)
        return logits


def own_criteria(prepared: StoppingCriteriaList) -> StoppingCriteriaList:
    """Without those that the loop already is: a canvas has its full length from the start, and its last column says
    nothing of whether a row has ended.
    """
    return StoppingCriteriaList([item for item in prepared if not isinstance(item, _OF_THE_LOOP)])


class Watch(Watcher):
    """Processors, criteria, streamer and callback of one call."""

    def __init__(
        self,
        model: Any,
        prompts: Prompts,
        processors: Processors,
        criteria: StoppingCriteriaList,
        streamer: Any,
        close: Callable[[Tensor], Tensor],
    ) -> None:
        self.model, self.prompts, self.processors, self.close = model, prompts, processors, close
        self.criteria, self.streamer = criteria, streamer
        self.callback: Callable[[Any, int, Tensor], None] | None = None
        self.stopped = torch.zeros(len(prompts.ids), dtype=torch.bool)
        self.logits_seen: Tensor | None = None
        self.takes_draft = hasattr(streamer, "put_draft")
        self.takes_logits = self.takes_draft and bool(getattr(streamer, "_takes_logits", False))

    @property
    def is_needed(self) -> bool:
        """Whether anything of it acts inside the loop."""
        return self.changes_draws or bool(self.criteria or self.callback) or self.streamer is not None

    @property
    def changes_draws(self) -> bool:
        """Whether there are processors."""
        return bool(self.processors.everywhere or self.processors.at_draw)

    def logits(self, rows: Tensor, prompts: Prompts, canvas: Tensor, columns: Tensor, logits: Tensor) -> Tensor:
        """Processors, with prompt and canvas as their prefix."""
        processed = self.processors.process(torch.cat([prompts.ids, canvas], dim=1), logits)
        if self.takes_logits:
            self._keep_logits(rows, canvas, columns, processed.cpu())
        return processed

    def _keep_logits(self, rows: Tensor, canvas: Tensor, columns: Tensor, logits: Tensor) -> None:
        """Logits of the whole batch for a streamer that wants them: certain where a token stands.

        Of rows that have not been asked yet nothing is known: all their tokens are equally likely.
        """
        full = logits.new_full((*canvas.shape, logits.shape[-1]), -torch.inf).scatter(2, canvas[..., None], 0.0)
        if self.logits_seen is None:
            self.logits_seen = full.new_zeros(len(self.stopped), *full.shape[1:])
        self.logits_seen[rows] = full.scatter(1, columns[..., None].expand_as(logits), logits)

    def truncate(self, logits: Tensor) -> Tensor:
        """Top-k, top-p and their kind."""
        return self.processors.truncate(logits)

    def wrote(self, canvas: Tensor, step: int) -> None:
        """Show the draft; logits once there are any, which a rule that may idle can take some steps for."""
        if self.takes_draft and not self.takes_logits:
            self.streamer.put_draft(value=canvas.clone())
        elif self.logits_seen is not None:
            self.streamer.put_draft(logits=self.logits_seen.clone())
        if self.callback is not None:
            self.callback(self.model, step, canvas.clone())

    def block_done(self, canvas: Tensor, start: int, end: int) -> Bool[Tensor, " b"]:
        """Stream the block, and ask the criteria about the prefix that is final now; behind EOS all is padding."""
        closed = self.close(canvas)
        if self.streamer is not None:
            self.streamer.put(closed[:, start:end].clone())
        if self.criteria and end < canvas.shape[1]:
            prefix = torch.cat([self.prompts.ids, closed[:, :end]], dim=1)
            self.stopped |= self.criteria(prefix, None).cpu()  # type: ignore[arg-type]
        return self.stopped
