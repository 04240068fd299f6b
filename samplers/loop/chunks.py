"""Many rows as several small batches: rows of like length share one, so that padding and idle rows cost little.

No draw depends on the batch (see `samplers.loop.sampling`), so the division changes nothing but speed. On a CPU a batch
of about 2,000 tokens keeps a layer's activations in the cache; on an accelerator one large batch is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.types import Completions, Prompts, join_completions

TOKENS_ON_CPU = 2048


def in_chunks(policy: BasePolicy, prompts: Prompts, write: Callable[[Prompts], Completions]) -> Completions:
    """Apply `write` to chunks of the rows and put its records together in the order of the rows."""
    lengths = prompts.mask.sum(dim=1)
    width = int(lengths.max()) + policy.facts.canvas_length
    size = max(1, TOKENS_ON_CPU // width) if policy.device.type == "cpu" else len(lengths)
    index = lengths.argsort(stable=True)
    parts = [write(_trimmed(prompts.rows(rows))) for rows in index.split(size)]
    is_in_order = len(parts) == 1 and torch.equal(index, index.sort().values)
    return parts[0] if is_in_order else join_completions(parts, index.argsort())


def _trimmed(prompts: Prompts) -> Prompts:
    """Without the columns that are padding in every row."""
    longest = int(prompts.mask.sum(dim=1).max())
    return replace(prompts, ids=prompts.ids[:, -longest:], mask=prompts.mask[:, -longest:])
