"""Pure functions under the policies: likelihood terms from logits, and rows of kept keys and values."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from dllm_rl.constraint import Constraint


def keys_of_rows(keys: Any, index: Int[Tensor, " n"]) -> DynamicCache:
    """A copy of keys and values with these rows."""
    taken = DynamicCache()
    for number, layer in enumerate(keys.layers):
        own = index.to(layer.keys.device)
        taken.update(layer.keys[own], layer.values[own], number)
    return taken


def target_log_probs(logits: Float[Tensor, "n v"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Log softmax at the targets, on the targets' device: only what is scored leaves the model's."""
    index = targets.to(logits.device)[..., None]
    return (logits.gather(-1, index).squeeze(-1) - logits.logsumexp(dim=-1)).to(targets.device)


def joint_terms(
    constraint: Constraint,
    logits: Float[Tensor, "b l v"],
    canvas: Int[Tensor, "b l"],
    is_masked: Bool[Tensor, "b l"],
    chosen: Bool[Tensor, "b l"],
    targets: Int[Tensor, "b l"],
    *,
    end: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b l"]:
    """Log-probabilities of the chosen positions' targets under the constrained law of one state; 0 elsewhere."""
    columns = torch.arange(canvas.shape[1]).expand_as(canvas)
    scores = constraint.scores(constraint.open_scores(logits), columns, canvas, is_masked, end)
    beta = constraint.backward(scores, unscored_from=end)
    weight = logits.gather(-1, targets[..., None]).squeeze(-1)
    chosen = chosen & is_masked
    return constraint.set_log_probs(scores, beta, chosen, constraint.labels_of(targets), weight)
