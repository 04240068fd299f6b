"""Reinforcement-learning objectives, one method a file; shared arithmetic in the modules with a leading underscore."""
