"""Engines: other programs that write a policy's completions faster than its own forwards do."""
