"""Memory that training a policy needs on its device, by part, before any weight is read.

Weights, gradients, optimiser and copies are counted from the model's architecture, which is built without memory.
Activations are what PyTorch would keep for the way back in a forward over that model; attention keeps its inputs and
its output, as fused kernels do. What allocators and kernels take beside is not counted.

Of weights that are sharded over devices, each has its part. While a policy samples, all devices have the whole weights
beside it; on the way back some layers, and the gradients of what is no layer (`dllm_rl.training.sharding`).

Legend: b rows, t positions, d width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM

from dllm_rl import registry
from dllm_rl.load_options import LoadOptions, LoraOptions
from dllm_rl.policies.adapters import adapted, base_of_adapter
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.head import dtype_of, without_adapter
from dllm_rl.policies.tiles import LARGE_VOCABULARY, TILE
from experiments.design.config import build_objective
from experiments.design.grid import Cell
from experiments.run.memory import available_gigabytes
from samplers.loop.sampling import rows_at_once

GIB = 2**30
# Copies of float32 logits that are alive at once: while a step is sampled, and on the way back.
SAMPLED_COPIES, SCORED_COPIES = 3, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What training asks of the memory.

    Attributes:
        rows: Distinct inputs whose activations are held at a time.
        sampled: rows that are written at once.
        width: Positions of an input.
        columns: of the canvas, all of which may be scored.
        has_reference: There is a frozen copy of the policy, unless a fresh adapter can be switched off.
        is_adapter_trained: The policy is an adapter that was trained before, which is not switched off.
    """

    rows: int
    sampled: int
    width: int
    columns: int
    has_reference: bool
    is_adapter_trained: bool = False

    @classmethod
    def of(cls, cell: Cell, facts: PolicyFacts, vocab_size: int) -> Workload:
        """Return that of a cell, whose policy has these facts."""
        train, columns = cell.train, facts.canvas_length
        # The block family reads its canvas clean and noisy at once.
        is_block = "block" in registry.get("policy", facts.family).lineage()
        width = facts.max_prompt + columns * (2 if is_block else 1)
        written = -(-train["prompts_per_step"] * train["group_size"] // cell.loading.shards)
        at_once = rows_at_once(torch.device(cell.loading.device), width, columns * vocab_size)
        return cls(
            rows=train["micro_batch_rows"],
            sampled=min(written, at_once),
            width=width,
            columns=columns,
            has_reference=build_objective(cell.objective).needs_ref,
            is_adapter_trained=base_of_adapter(Path(cell.checkpoint)) is not None,
        )


def footprint(config: Any, options: LoadOptions, work: Workload) -> dict[str, int]:
    """Return the bytes of each part that is held at the peak.

    Args:
        config: Of a stock decoder, as transformers has it.
    """
    dtype = getattr(torch, options.dtype) if options.dtype else config.dtype or torch.float32
    model = _empty(config, dtype, options)
    fixed, trained = _bytes(model, is_trained=False), _bytes(model, is_trained=True)
    numbers = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    parts = {"weights": fixed + trained} if options.lora is None else {"weights": fixed, "adapter": trained}
    parts |= {"gradients": trained, "AdamW": _averages(model, options)}
    if trained < 4 * numbers:
        parts["master weights and their gradients"] = 8 * numbers
    if work.has_reference and (options.lora is None or work.is_adapter_trained):
        parts["reference policy"] = fixed + trained
    parts = {name: -(-size // options.shards) for name, size in parts.items()}
    return parts | max(_phases(config, dtype, options, work), key=lambda phase: sum(phase.values()))


def _phases(config: Any, dtype: torch.dtype, options: LoadOptions, work: Workload) -> list[dict[str, int]]:
    """What is held beside weights and optimiser, while an update goes on and while the policy samples."""
    column = config.vocab_size * 4
    read = work.rows * work.columns * column
    if config.vocab_size >= LARGE_VOCABULARY:
        read = min(read, 4 * TILE)
    kept = work.rows * activations(config, dtype, work.width, options)
    update = {"activations and logits of an update": kept + SCORED_COPIES * read}
    sampling = {"logits of sampling": work.sampled * SAMPLED_COPIES * work.columns * column}
    if options.shards > 1:
        one, two = (_bytes(_empty(config, dtype, options, layers=number), is_trained=True) for number in (1, 2))
        layer, rest = two - one, 2 * one - two
        # The next layer is gathered beside the one that is read; gradients are added up in float32.
        update["gathered layers and their gradients"] = 3 * layer + 2 * rest + rest * 4 // dtype.itemsize
        sampling["gathered weights"] = rest + config.num_hidden_layers * layer
    return [update, sampling]


# Of AdamW in 8 bits: smaller tensors are averaged in float32, and each block of so many numbers has a scale.
_WHOLE_BELOW, _BLOCK = 4096, 256


def _averages(model: Any, options: LoadOptions) -> int:
    """Bytes of AdamW's two averages of what is trained."""
    sizes = [weight.numel() for weight in model.parameters() if weight.requires_grad]
    if options.optimiser == "adamw":
        return 8 * sum(sizes)
    return sum(8 * size if size < _WHOLE_BELOW else 2 * size + 8 * -(-size // _BLOCK) for size in sizes)


def _bytes(model: Any, *, is_trained: bool) -> int:
    return sum(x.numel() * x.element_size() for x in model.parameters() if x.requires_grad == is_trained)


def _empty(config: Any, dtype: torch.dtype, options: LoadOptions, *, layers: int | None = None) -> Any:
    """The model without memory, with its adapter.

    Args:
        layers: How many it has. Default: its own number.
    """
    if layers is not None:
        # Kinds of layers are listed one by one.
        kinds = getattr(config, "layer_types", None)
        changes = {"num_hidden_layers": layers, **({"layer_types": kinds[:layers]} if kinds else {})}
        config = type(config)(**{**config.to_dict(), **changes})
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=_COUNTED)
        return model if options.lora is None else adapted(model, options.lora)


def activations(config: Any, dtype: torch.dtype, width: int, options: LoadOptions) -> int:
    """Return the bytes that one row of `width` positions keeps for the way back, without logits."""
    one, two = (_kept(_empty(config, dtype, options, layers=number), width) for number in (1, 2))
    layer, rest = two - one, 2 * one - two
    if not options.gradient_checkpointing:
        return rest + config.num_hidden_layers * layer
    # The input of each layer, and one layer that is computed again.
    return rest + layer + config.num_hidden_layers * width * config.hidden_size * dtype.itemsize


def _kept(model: Any, width: int) -> int:
    """Bytes of the distinct tensors that autograd keeps in a forward over one row, weights aside."""
    own = {_place(weight) for weight in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(_place(tensor), tensor)
        return tensor

    ids = torch.zeros(1, width, dtype=torch.long, device="meta")
    mask = torch.zeros(1, 1, width, width, dtype=dtype_of(model), device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        decoder = without_adapter(model).get_decoder()
        states = decoder(input_ids=ids, attention_mask=mask, position_ids=ids, use_cache=False)
    sizes = [tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own]
    del states
    return sum(sizes)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _Fused(torch.autograd.Function):
    """Attention that keeps what fused kernels keep: queries, keys, values and the output."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output


def _counted(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        # With a mask, keys and values are repeated for each group of queries.
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


_COUNTED = "counted"
AttentionInterface.register(_COUNTED, _counted)


def capacity(device: str) -> int | None:
    """Return the bytes that a device has, or what of the processor's memory is free; None where it is not here."""
    kind = torch.device(device)
    if kind.type == "cpu":
        return int(available_gigabytes() * 1e9)
    if kind.type == "cuda" and (kind.index or 0) < torch.cuda.device_count():
        return torch.cuda.get_device_properties(kind).total_memory
    return None


# What takes less memory, each on top of those before it.
_SMALLER: tuple[tuple[str, Callable[[LoadOptions, Workload], tuple[LoadOptions, Workload]]], ...] = (
    ("gradient_checkpointing: true", lambda o, w: (o.model_copy(update={"gradient_checkpointing": True}), w)),
    ("train.micro_batch_rows: 1", lambda o, w: (o, replace(w, rows=1))),
    ("dtype: bfloat16", lambda o, w: (o.model_copy(update={"dtype": "bfloat16"}), w)),
    (
        "optimiser: adamw_8bit",
        lambda o, w: (o.model_copy(update={"optimiser": "adamw_8bit"}) if o.shards == 1 else o, w),
    ),
    (
        "lora: {rank: 16}",
        lambda o, w: (o.model_copy(update={"lora": o.lora or LoraOptions()}) if o.shards == 1 else o, w),
    ),
)


def what_fits(config: Any, options: LoadOptions, work: Workload, limit: int) -> list[str] | None:
    """Return the settings with which the run fits into so many bytes.

    [] where it fits as it is, None where none of them helps.
    """
    said: list[str] = []
    if sum(footprint(config, options, work).values()) <= limit:
        return said
    for name, change in _SMALLER:
        changed = change(options, work)
        if changed != (options, work):
            options, work = changed
            said.append(name)
            if sum(footprint(config, options, work).values()) <= limit:
                return said
    return None


def shards_that_fit(config: Any, options: LoadOptions, work: Workload, limit: int) -> int | None:
    """Return over how many devices like this one the run would have to be sharded; None where that does not help."""
    if options.lora is not None or options.device == "cpu":
        return None
    numbers = (number for number in (2, 4, 8, 16, 32, 64) if number > options.shards)
    sharded = ((number, options.model_copy(update={"shards": number})) for number in numbers)
    return next((number for number, other in sharded if sum(footprint(config, other, work).values()) <= limit), None)
