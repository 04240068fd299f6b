"""The masked-diffusion family (MDLM 2406.07524, LLaDA 2502.09992, Dream 2508.15487): bidirectional, MASK to token."""

from __future__ import annotations

from typing import ClassVar

from dllm_rl.policies.base import BasePolicy
from dllm_rl.policies.terms import Attention
from dllm_rl.registry import register
from dllm_rl.types import Family


@register("policy", "masked")
class MaskedPolicy(BasePolicy):
    """Sees the whole canvas; the logits at a MASK are of the token under it (shifted by one for Dream)."""

    family: ClassVar[Family] = "masked"
    attention: ClassVar[Attention] = "full"
