"""The command `dllm-rl`: `commands` declares every command, the other modules do the work of one each."""

from experiments.cli.commands import app, main

__all__ = ["app", "main"]
