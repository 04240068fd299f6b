"""Samplers: how a policy writes a plan, one driver a family; every draw is recorded."""
