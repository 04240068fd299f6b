"""`python -m experiments.cli` is `dllm-rl`."""

from experiments.cli.commands import main

main()
