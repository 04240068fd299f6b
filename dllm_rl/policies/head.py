"""Logits at scored positions only, so that a language model's widest tensor, b x t x v, never exists whole.

Legend: b rows, t positions, n scored positions of all rows, d width of the hidden states, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dllm_rl.errors import ConfigError


@contextmanager
def scored_only(
    model: nn.Module, row: Int[Tensor, " n"], place: Int[Tensor, " n"], *, shape: tuple[int, int]
) -> Iterator[Callable[[Float[Tensor, "b t v"]], Float[Tensor, "1 n v"]]]:
    """Let the output head of `model` read the given positions only, as one row, while the context is open.

    Yields a function that selects the same positions from the logits, for models whose output head could not be hooked.
    It returns logits that are already narrowed as they are.

    Args:
        row: Row of each scored entry.
        place: Its position.
        shape: (rows, positions) of the head's input.
    """
    is_narrowed = False

    def narrow(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal is_narrowed
        states = inputs[0] if inputs else None
        # An embedding that is the head too reads ids; some models show the head a part, or another stream.
        if not isinstance(states, Tensor) or not states.is_floating_point() or states.shape[:-1] != shape:
            return None
        is_narrowed = True
        return (_taken(states, row, place), *inputs[1:])

    def narrowed(logits: Tensor) -> Tensor:
        if is_narrowed and logits.shape[:2] == (1, len(row)):
            return logits
        if is_narrowed or logits.shape[:2] != shape:
            raise ConfigError(
                f"this model's logits have the shape {tuple(logits.shape)}, and {(*shape, 'vocabulary')} were asked "
                "for, so which positions they belong to is not known. Its forward does more after the output embedding "
                "than a policy can follow."
            )
        return _taken(logits, row, place)

    head = output_head(model)
    hook = None if head is None else head.register_forward_pre_hook(narrow)
    try:
        yield narrowed
    finally:
        if hook is not None:
            hook.remove()


@contextmanager
def bare_head(model: nn.Module) -> Iterator[list[Tensor]]:
    """Let the output head give back what it reads, so that the model returns hidden states in place of logits.

    Yields a list of what it gave.
    """
    head: Any = output_head(model)
    own, given = vars(head).get("forward"), list[Tensor]()

    def give_back(states: Tensor) -> Tensor:
        given.append(states)
        return states

    head.forward = give_back
    try:
        yield given
    finally:
        if own is None:
            del head.forward
        else:
            head.forward = own


def without_adapter(model: nn.Module) -> Any:
    """The model itself, which an adapter may wrap."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def dtype_of(model: nn.Module) -> torch.dtype:
    """Type of the numbers that the model computes with: that of its embedding, since adapters are kept in float32."""
    embedding = without_adapter(model).get_input_embeddings()
    return embedding.weight.dtype


def output_head(model: nn.Module) -> nn.Module | None:
    """The module that turns hidden states into logits; None where the model names none."""
    inner = without_adapter(model)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    return head if isinstance(head, nn.Module) else None


def _taken(x: Float[Tensor, "b t d"], row: Int[Tensor, " n"], place: Int[Tensor, " n"]) -> Float[Tensor, "1 n d"]:
    return x[row.to(x.device), place.to(x.device)][None]
