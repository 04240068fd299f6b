"""`python -m experiments.cli` is `dllm-rl`."""

from experiments.cli.entry import main

main()
