"""The environment that turns a plan into an outcome: real Chromium, a real HTTP server, no machine-learning stack."""
