"""Outside benchmarks and interfaces, each over the same pool, executors and outcome; each needs its own extra."""
