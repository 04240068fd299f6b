"""Samplers as transformers' `custom_generate`, with its processors, criteria, streamers and callbacks."""

from samplers.hf.generate import DiffusionOutput, diffusion_generate

__all__ = ["DiffusionOutput", "diffusion_generate"]
