"""What environments have in common that run plans in a browser of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from dllm_rl.environment import Environment
from dllm_rl.errors import ConfigError
from harness.browser import BrowserPool, Isolation, isolation_named, usual_places
from harness.execute import ExecutorName, executor_named


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserSettings:
    """How an environment runs plans in its browser, where a call does not say otherwise.

    Attributes:
        isolation: How rollouts are kept apart; see `harness.browser.pool.BrowserPool`.
        executor: How actions are carried out: by script ("fast") or by real input ("trusted").
        concurrency: Rollouts at a time; None for the number measured to be best for isolation mode and cores.
    """

    isolation: Isolation = "page"
    executor: ExecutorName = "fast"
    concurrency: int | None = None

    def __post_init__(self) -> None:
        isolation_named(self.isolation)
        executor_named(self.executor)
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency is {self.concurrency}; expected at least 1.")

    def num_places(self, isolation: Isolation) -> int:
        """Rollouts at a time in this isolation mode."""
        return self.concurrency or usual_places(isolation)


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
