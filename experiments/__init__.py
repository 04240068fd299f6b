"""Composition root: command line, grid, statistics, diagnosis and report."""
