"""Samplers: how a policy writes a plan, one driver a family; every draw is recorded."""

from __future__ import annotations

DEFAULT_SAMPLERS = {
    "autoregressive": "ar",
    "masked": "low_confidence",
    "block": "threshold",
    "slot": "slots",
    "flow": "flow_exact",
}
