"""What the environment loses is tried again: first with nothing that was used before, at last in a new browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from harness.browser.faults import EnvironmentFaultError
from harness.browser.pool import BrowserPool

NUM_ATTEMPTS = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One of the attempts at a rollout, counted from 1. is_fresh: it should use no tab that was used before."""

    number: int

    @property
    def is_fresh(self) -> bool:
        """Whether an earlier one was lost."""
        return self.number > 1

    @property
    def is_last(self) -> bool:
        """Whether what this one loses is lost."""
        return self.number == NUM_ATTEMPTS


async def attempts(pool: BrowserPool, once: Callable[[Attempt], Awaitable[T]]) -> T:
    """What `once` returns, the first time that the environment does not lose it.

    The last attempt has a new browser, if the one that lost the attempt before it is still in use.

    Raises:
        EnvironmentFaultError: the environment lost all of them; it is the last one's.
    """
    attempt, generation = Attempt(1), None
    while True:
        if attempt.is_last:
            pool.retire(generation)
        try:
            return await once(attempt)
        except EnvironmentFaultError as fault:
            if attempt.is_last:
                raise
            attempt, generation = Attempt(attempt.number + 1), fault.generation
