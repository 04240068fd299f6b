"""Drivers of the families that write in ways of their own, one a file."""
