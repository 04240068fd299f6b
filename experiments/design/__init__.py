"""The design of a grid: presets (`config`), cells (`grid`), units of work with their digests and costs (`units`)."""
