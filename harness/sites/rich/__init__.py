"""The rich world: further form kinds, richer controls, what stands in the way, and sites that are slow or busy.

It is a task source of its own beside the basic world, whose tasks and pages it leaves as they are.
"""

from harness.sites.rich.factory import make_rich_tasks
from harness.sites.rich.kinds import rich_forms

__all__ = ["make_rich_tasks", "rich_forms"]
