"""Components of a third party, on documented names of dllm_rl only."""
