"""Denoising films: how a plan comes to be, step by step, in the terminal or as a page with a slider."""

from experiments.report.film.show import show_film

__all__ = ["show_film"]
