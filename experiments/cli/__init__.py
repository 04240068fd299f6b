"""The command `dllm-rl`: `commands` declares every command, `entry` starts them, the others do the work of one each."""

from experiments.cli.commands import app
from experiments.cli.entry import main

__all__ = ["app", "main"]
