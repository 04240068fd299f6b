"""Policies: a Hugging Face model plus the few facts that samplers and likelihoods need, one family a file.

`policies.loading` loads and saves them; it stands apart because it imports transformers' model classes.
"""

from dllm_rl.policies.base import BasePolicy, PolicyFacts
from dllm_rl.policies.process import ForwardProcess

__all__ = ["BasePolicy", "ForwardProcess", "PolicyFacts"]
