"""A grid on several machines: Ray places one worker a node, and each runs units with a browser fleet of its own."""
