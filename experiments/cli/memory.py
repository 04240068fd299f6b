"""What a dry run says of a policy's memory: by part, and what would fit where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dllm_rl.errors import ConfigError
from dllm_rl.policies.adapters import base_of_adapter, options_of_adapter
from dllm_rl.policies.base import PolicyFacts
from dllm_rl.policies.checkpoints import checked_facts
from dllm_rl.policies.foreign import stored_config, stored_facts
from experiments.design.grid import Cell
from experiments.run.footprint import GIB, Workload, capacity, footprint, shards_that_fit, what_fits


def print_memory(cells: Sequence[Cell], console: Console) -> None:
    """Print the memory that training a policy needs, by part.

    Args:
        cells: All of the policy's, of which the one that needs most counts.

    Raises ConfigError where the device has less, with what would fit.
    """
    cell = cells[0]
    options, checkpoint = cell.loading, cell.checkpoint
    base = base_of_adapter(Path(checkpoint))
    if base is not None:
        options = options.model_copy(update={"lora": options_of_adapter(Path(checkpoint))})
        checkpoint = base
    config = stored_config(checkpoint, options)
    if config is None:
        console.print(
            f"memory of {cell.policy}: not known before {checkpoint} is on this disk (hf download {checkpoint}).",
            highlight=False,
            soft_wrap=True,
        )
        return
    stored = stored_facts(cell.checkpoint, cell.loading)
    _, facts = checked_facts(cell.checkpoint, stored, {"family": cell.family, **cell.facts})
    found = [(footprint(config, options, work), work) for work in _works(cells, facts, config.vocab_size)]
    parts, work = max(found, key=lambda pair: sum(pair[0].values()))
    each = f", each of {options.shards} devices" if options.shards > 1 else ""
    table = Table(f"memory of {cell.policy} on {cell.loading.device}{each}", "GiB")
    for name, size in (*parts.items(), ("in all", sum(parts.values()))):
        table.add_row(name, f"{size / GIB:.2f}")
    console.print(table)
    limit = capacity(cell.loading.device)
    if limit is None or sum(parts.values()) <= limit:
        return
    changes, shards = what_fits(config, options, work, limit), shards_that_fit(config, options, work, limit)
    advice = [] if changes is None else [f"with {', '.join(changes)}"]
    advice += [] if shards is None else [f"on {shards} such devices with shards: {shards}"]
    raise ConfigError(
        f"policy '{cell.policy}' needs about {sum(parts.values()) / GIB:.1f} GiB on {cell.loading.device}{each}, which "
        f"has {limit / GIB:.1f}. "
        + (
            f"It would fit {', or '.join(advice)}."
            if advice
            else "Nothing that can be set would make it fit. Take a smaller checkpoint or another device."
        )
    )


def _works(cells: Sequence[Cell], facts: PolicyFacts, vocab_size: int) -> list[Workload]:
    """What the cells ask of the memory, each kind once."""
    return list(dict.fromkeys(Workload.of(cell, facts, vocab_size) for cell in cells))
