"""Likelihoods: the terms that a score is made of, and the distribution of draws under a grammar."""

from dllm_rl.likelihood.constraint import Constraint
from dllm_rl.likelihood.terms import LOG_PROB, LogProb, Term, joint_terms, target_log_probs

__all__ = ["LOG_PROB", "Constraint", "LogProb", "Term", "joint_terms", "target_log_probs"]
