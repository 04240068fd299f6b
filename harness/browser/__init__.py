"""Chromium: a pool of browsers and their tabs, isolation of rollouts, and whose fault a failure is."""

from harness.browser.faults import AgentDeadlineError, AgentLeftError, EnvironmentFaultError, attribute, usable_cores
from harness.browser.pool import (
    NUM_ATTEMPTS,
    Attempt,
    BrowserPool,
    Isolation,
    isolation_named,
    share_cores,
    usual_places,
)
from harness.browser.tab import FOREIGN, Tab, TraceRecorder

__all__ = [
    "FOREIGN",
    "NUM_ATTEMPTS",
    "AgentDeadlineError",
    "AgentLeftError",
    "Attempt",
    "BrowserPool",
    "EnvironmentFaultError",
    "Isolation",
    "Tab",
    "TraceRecorder",
    "attribute",
    "isolation_named",
    "share_cores",
    "usable_cores",
    "usual_places",
]
