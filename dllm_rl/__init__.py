"""dllm_rl: how reinforcement learning changes a diffusion language model that must act on the web.

Importing this package loads no machine-learning stack; `dllm_rl.records` is free of torch. It sets how the threads of
PyTorch wait (`dllm_rl.threads`), which works where PyTorch is imported later.
"""

from dllm_rl import threads as threads

__version__ = "0.1.0"
