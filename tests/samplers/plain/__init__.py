"""The samplers as plain loops: every position, every statistic, every step. What the fast ones must equal."""
