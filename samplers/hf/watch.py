"""What one call of `generate` brought along, at work inside the loop: processors, criteria, a streamer, a callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from transformers import StoppingCriteriaList

from dllm_rl.records.types import Prompts
from samplers.hf.processors import Processors
from samplers.loop.context import Watcher


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
        acts = self.processors.everywhere or self.processors.at_draw or self.criteria or self.callback
        return bool(acts) or self.streamer is not None

    def logits(self, rows: Tensor, prompts: Prompts, canvas: Tensor, columns: Tensor, logits: Tensor) -> Tensor:
        """Processors, with prompt and canvas as their prefix."""
        processed = self.processors.process(torch.cat([prompts.ids, canvas], dim=1), logits)
        if self.takes_logits:
            self._keep_logits(rows, canvas, columns, processed)
        return processed

    def _keep_logits(self, rows: Tensor, canvas: Tensor, columns: Tensor, logits: Tensor) -> None:
        """Logits of the whole batch for a streamer that wants them: certain where a token stands.

        Of rows that have not been asked yet nothing is known: all their tokens are equally likely.
        """
        full = torch.full((*canvas.shape, logits.shape[-1]), -torch.inf).scatter(2, canvas[..., None], 0.0)
        if self.logits_seen is None:
            self.logits_seen = torch.zeros(len(self.stopped), *full.shape[1:])
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
