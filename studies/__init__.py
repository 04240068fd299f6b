"""Studies of the methods themselves, apart from grids: `python -m studies.exact`, `python -m studies.lab RUN`."""
