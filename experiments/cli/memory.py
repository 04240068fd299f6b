"""What a dry run says of a policy's memory: by part, and what would fit where it does not."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from dllm_rl.errors import ConfigError
from dllm_rl.policies.adapters import base_of_adapter, options_of_adapter
from dllm_rl.policies.checkpoints import checked_facts
from dllm_rl.policies.foreign import stored_config
from experiments.design.grid import Cell
from experiments.run.footprint import GIB, Workload, capacity, footprint, what_fits


def print_memory(cell: Cell, console: Console) -> None:
    """Print the memory that training this cell's policy needs, by part.

    Raises ConfigError where the device has less, with what would fit.
    """
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
    _, facts = checked_facts(cell.checkpoint, {}, {"family": cell.family, **cell.facts})
    work = Workload.of(cell, facts, config.vocab_size)
    parts = footprint(config, options, work)
    table = Table(f"memory of {cell.policy} on {cell.loading.device}", "GiB")
    for name, size in (*parts.items(), ("in all", sum(parts.values()))):
        table.add_row(name, f"{size / GIB:.2f}")
    console.print(table)
    limit = capacity(cell.loading.device)
    if limit is not None and sum(parts.values()) > limit:
        _refuse(cell, sum(parts.values()), limit, what_fits(config, options, work, limit))


def _refuse(cell: Cell, needed: int, limit: int, changes: list[str] | None) -> None:
    advice = (
        "Even an adapter on one row at a time would not. Take a smaller checkpoint or another device."
        if changes is None
        else f"It would fit with {', '.join(changes)}."
    )
    raise ConfigError(
        f"policy '{cell.policy}' needs about {needed / GIB:.1f} GiB on {cell.loading.device}, which has "
        f"{limit / GIB:.1f}. {advice}"
    )
