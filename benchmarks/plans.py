"""Tasks whose plans are judged without a browser: by equality with the gold plan, and by whether they act on the page.

Pages are `expected_page`'s, which a browser test holds equal to what the scout reads. Equality is stricter than
success: a plan may differ from gold and succeed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Observation, render_prompt
from dllm_rl.records.types import Prompts
from dllm_rl.testing.sampler import is_grounded
from harness.sites import expected_page, gold_plan, make_site, make_tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Tasks in order: their prompts, pages and gold plans.

    Attributes:
        first: Number of the first one, which names its noise.
    """

    texts: tuple[str, ...]
    pages: tuple[Observation, ...]
    gold: tuple[str, ...]
    first: int = 0

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, start: int, end: int) -> Sheet:
        """Tasks start to end."""
        cut = slice(start, end)
        return Sheet(texts=self.texts[cut], pages=self.pages[cut], gold=self.gold[cut], first=self.first + start)

    def prompts(self, policy: BasePolicy, *, sample: int = 0) -> Prompts:
        """One row a task, its pages included."""
        rows = range(self.first, self.first + len(self))
        prompts = policy.prompts(self.texts, [1_000_003 * sample + row for row in rows])
        return replace(prompts, pages=self.pages)

    def equal(self, plans: Sequence[str]) -> list[bool]:
        """Which plans are the gold plan."""
        return [plan == gold for plan, gold in zip(plans, self.gold, strict=True)]

    def parsed(self, plans: Sequence[str]) -> list[bool]:
        """Which plans parse."""
        return [parse_plan(plan).is_parsed for plan in plans]

    def grounded(self, plans: Sequence[str]) -> list[bool]:
        """Which plans parse and act on the page's controls."""
        return [is_grounded(page, plan) for page, plan in zip(self.pages, plans, strict=True)]


@functools.lru_cache(maxsize=4)
def sheet(count: int, split: str = "val") -> Sheet:
    """The first `count` tasks of a split as the presets make them: small forms, dials 0 and 1."""
    tasks = make_tasks(split, count=count)
    pages = [expected_page(make_site(task.site)) for task in tasks]
    texts = tuple(render_prompt(task, page) for task, page in zip(tasks, pages, strict=True))
    gold = tuple(gold_plan(task, page) for task, page in zip(tasks, pages, strict=True))
    return Sheet(texts=texts, pages=tuple(pages), gold=gold)


def decode(policy: BasePolicy, ids: torch.Tensor) -> list[str]:
    """Plans of completions."""
    return [policy.canvas.decode(row) for row in ids]
