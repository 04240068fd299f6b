"""Policies: a Hugging Face model plus the few facts that samplers and likelihoods need, one family a file."""
