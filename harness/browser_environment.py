"""What environments have in common that run plans in a browser of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

from dllm_rl.environment import Environment
from harness.browser import BrowserPool
from harness.settings import BrowserSettings

S = TypeVar("S", bound=BrowserSettings)


class BrowserEnvironment(Environment, Generic[S]):
    """An environment with a pool of browsers, which its `close` must close."""

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self.pool = BrowserPool()

    @property
    def concurrency(self) -> int:
        """Rollouts at a time in the isolation mode of the settings."""
        return self.settings.num_places(self.settings.isolation)

    @property
    def versions(self) -> Mapping[str, str]:
        """The version of the Chromium that runs now."""
        return {"chromium": self.pool.version} if self.pool.version else {}

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the browsers that run now."""
        return self.pool.pids
