"""dllm_rl: how reinforcement learning changes a diffusion language model that must act on the web.

Importing this package loads no machine-learning stack; `dllm_rl.records` is free of torch.
"""

__version__ = "0.1.0"
