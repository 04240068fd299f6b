"""Likelihoods: the views that are scored, and the terms that a score is made of."""
