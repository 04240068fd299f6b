"""What kinds of layers a model has, and for how many positions it was made, as its configuration says."""

from __future__ import annotations

from typing import Any

# What transformers calls layers that attend to keys.
ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_LISTS = ("layer_types", "layers_block_type", "block_types")
_WINDOWS = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}


def kinds_of_layers(config: Any) -> set[str]:
    """Return the kinds of layers, under any of the names that transformers has for the list; none where it has none."""
    kinds = {str(kind) for key in _LISTS for kind in getattr(config, key, None) or ()}
    return {"full_attention" if kind == "attention" else kind for kind in kinds}


def limits(config: Any) -> dict[str, int]:
    """Return numbers of positions that the model was made for, by the key that says so."""
    kinds = kinds_of_layers(config)
    keys = ["max_position_embeddings", *(key for kind, key in _WINDOWS.items() if kind in kinds or not kinds)]
    found = {key: getattr(config, key, None) for key in keys}
    return {key: limit for key, limit in found.items() if isinstance(limit, int)}
