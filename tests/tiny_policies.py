"""The random-weight policies of `dllm_rl.testing`, by the names that tests use."""

from dllm_rl.testing.policies import PAGES, PLANS, PROMPTS, random_policy, tokenizer

make_tiny_policy = random_policy
__all__ = ["PAGES", "PLANS", "PROMPTS", "make_tiny_policy", "tokenizer"]
