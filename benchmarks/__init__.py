"""What things cost and how good they are: each module is a command, `python -m benchmarks.NAME`."""
