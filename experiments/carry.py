"""What the commands `pack` and `unpack` say."""

from __future__ import annotations

from pathlib import Path

from experiments.commands import run_folder
from experiments.pack import pack_run
from experiments.unpack import unpack_run


def pack(run: Path, out: Path | None, *, with_rollouts: bool) -> int:
    """Pack a run and say what is in the file and what is not."""
    done = pack_run(run_folder(run), out, with_rollouts=with_rollouts)
    each = done.num_bytes / done.num_units / 1000
    print(f"{done.num_units} of {done.num_planned} units are finished; {each:.0f} kB each: {done.path}")
    for what, size in done.left_out.items():
        hint = " (--rollouts packs them)" if what == "training rollouts" else ""
        print(f"left out, too large: {what}, {size / 1e6:.1f} MB{hint}")
    return 0


def unpack(file: Path, out: Path | None) -> int:
    """Unpack a file and say what is finished now, and how to go on."""
    done = unpack_run(file, out)
    print(f"{done.root}: {done.num_new} units laid down, {done.num_known} were there already")
    if done.is_other:
        print(
            f"This folder's configuration is another than the file's, and stays: {done.num_judged} finished units "
            "belong to it. The others count where settings and code are those that made them."
        )
    print(f"`dllm-rl report {done.root}` judges them; the grid's own command with --out {done.root} runs what is owed.")
    return 0
