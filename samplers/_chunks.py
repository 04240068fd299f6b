"""Many rows as several small batches: rows of like length share one, so that padding and idle rows cost little.

No draw depends on the batch (see `samplers._noise`), so the division changes nothing but speed. On a CPU a batch of
about 2,000 tokens keeps a layer's activations in the cache; on an accelerator one large batch is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dllm_rl.constraint import Constraint, join
from dllm_rl.policies.base import BasePolicy
from dllm_rl.types import Completions, Prompts, Trajectory

TOKENS_ON_CPU = 2048


def in_chunks(policy: BasePolicy, prompts: Prompts, write: Callable[[Prompts], Completions]) -> Completions:
    """Apply `write` to chunks of the rows and put its records together in the order of the rows."""
    lengths = prompts.mask.sum(dim=1)
    width = int(lengths.max()) + policy.facts.canvas_length
    size = max(1, TOKENS_ON_CPU // width) if policy.device.type == "cpu" else len(lengths)
    index = lengths.argsort(stable=True)
    parts = [write(_trimmed(prompts.rows(rows))) for rows in index.split(size)]
    return parts[0] if len(parts) == 1 and torch.equal(index, index.sort().values) else _merge(parts, index.argsort())


def _trimmed(prompts: Prompts) -> Prompts:
    """Without the columns that are padding in every row."""
    longest = int(prompts.mask.sum(dim=1).max())
    return replace(prompts, ids=prompts.ids[:, -longest:], mask=prompts.mask[:, -longest:])


def _merge(parts: Sequence[Completions], place: Tensor) -> Completions:
    """One record of all rows. Shorter trajectories stay at their last state; nfe is that of the longest."""
    records = [part.trajectory for part in parts]
    trajectory = Trajectory(
        canvases=_states([record.canvases for record in records], place),
        time=records[0].time,
        commit_step=torch.cat([record.commit_step for record in records])[place],
        log_probs=torch.cat([record.log_probs for record in records])[place],
        entropy=torch.cat([record.entropy for record in records])[place],
        order=_states([record.order for record in records], place),
        constraint=_constraints([record.constraint for record in records], place),
        is_approximate=any(record.is_approximate for record in records),
    )
    return Completions(
        ids=torch.cat([part.ids for part in parts])[place],
        mask=torch.cat([part.mask for part in parts])[place],
        trajectory=trajectory,
        nfe=max(part.nfe for part in parts),
        token_forwards=sum(part.token_forwards for part in parts),
    )


def _constraints(records: Sequence[Constraint | None], place: Tensor) -> Constraint | None:
    constraints = [record for record in records if record is not None]
    return join(constraints).rows(place) if constraints else None


def _states(records: Sequence[Tensor | None], place: Tensor) -> Tensor | None:
    tensors = [record for record in records if record is not None]
    if not tensors:
        return None
    longest = max(tensor.shape[1] for tensor in tensors)
    padded = [
        torch.cat([tensor, tensor[:, -1:].expand(-1, longest - tensor.shape[1], -1)], dim=1) for tensor in tensors
    ]
    return torch.cat(padded)[place]
