"""Policies: a Hugging Face model plus the few facts that samplers and likelihoods need, one family a file.

`policies.checkpoints` says what a checkpoint is, `policies.loading` loads and saves; the latter imports transformers.
"""

from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.process import ForwardProcess

__all__ = ["BasePolicy", "ForwardProcess", "PolicyFacts"]
