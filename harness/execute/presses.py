"""What scripts of a page that is not ours send: nothing that was sent before anything was pressed is the form."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Presses:
    """How much had been requested when a button, a link, or a key that sends a form was first pressed.

    Attributes:
        num_requests: How many requests the page has made so far.
        answered: Waits until the application has answered the form. Raises EnvironmentFaultError where it does not.
        first: How many requests there were at the first press that did something; None until there is one.
    """

    num_requests: Callable[[], int]
    answered: Callable[[], Awaitable[None]]
    first: int | None = None

    def note(self) -> None:
        """Something is about to be pressed."""
        self.first = self.num_requests()
