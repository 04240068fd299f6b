"""Unmasking rules of the denoise loop, one a file; `base` is the contract."""
