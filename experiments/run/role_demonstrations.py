"""Demonstrations for roles (`dllm_rl.roles`): what an oracle would say in each, in sets weighted by their size.

The hierarchical multi-task warm start of OpAgent: *planning* says what a turn will change, *acting* which actions come
next, *grounding* which element an instruction means. *Reflecting* and *summarizing* are the other two roles. The code
that makes prompts in play makes them here. What does not fit into a prompt is left out.

The published weight of a sample of set i with n_i samples is proportional to (1 - beta) / (1 - beta^n_i), beta = 1 -
10^-k. Here a set gets the share of the demonstrations that its weighted samples have of all: the expected loss is the
same, and no loss needs a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, cycle, islice, pairwise
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from dllm_rl.notebook import Notebook
from dllm_rl.records.plan import Action, parse_turn, quote, render_action
from dllm_rl.records.tasks import Observation, Task, render_page
from dllm_rl.roles import NO_REFLECTION, Asking, Instruction, grounder_prompt, read_plan, read_reflection
from experiments.design.turns import RoleSwitches
from harness.errands import Rehearsal

if TYPE_CHECKING:
    from dllm_rl.training.warmstart import Demonstration

Weighting = Literal["published", "uniform", "proportional"]
Sets = Mapping[str, "list[Demonstration]"]


class RoleDemonstrations(RoleSwitches):
    """For which roles, and how much each set of demonstrations counts.

    Attributes:
        planning: Whether it is shown as well what a turn changes, which no role is asked.
        weighting: published; uniform: each set has the same share; proportional: each sample counts the same.
        exponent: k of the published weighting, by which sets of more than 10^k samples count by their size, and smaller
            ones all the same. OpAgent does not say its own.
    """

    planning: bool = True
    weighting: Weighting = "published"
    exponent: int = Field(default=3, ge=1, le=9)

    @model_validator(mode="after")
    def _refuse_what_has_no_effect(self) -> RoleDemonstrations:
        if "exponent" in self.model_fields_set and self.weighting != "published":
            raise ValueError(f"exponent has no effect on the {self.weighting} weighting. Leave it out")
        return self

    def mixed(self, sets: Sets, count: int) -> list[Demonstration]:
        """`count` demonstrations, of each set its share; a set that is too small for its share is shown again."""
        known = {name: shown for name, shown in sets.items() if shown}
        wanted = shares({name: len(shown) for name, shown in known.items()}, self.weighting, self.exponent)
        ends = [0, *(round(count * end) for end in accumulate(wanted.values()))]
        return [
            item
            for shown, (start, end) in zip(known.values(), pairwise(ends), strict=True)
            for item in islice(cycle(shown), end - start)
        ]


def shares(sizes: Mapping[str, int], weighting: Weighting, exponent: int) -> dict[str, float]:
    """Share of the loss of each set."""
    if weighting == "uniform":
        return dict.fromkeys(sizes, 1 / len(sizes))
    weights = dict.fromkeys(sizes, 1.0)
    if weighting == "published":
        beta = 1 - 10.0**-exponent
        weights = {name: (1 - beta) / (1 - beta**size) for name, size in sizes.items()}
    total = sum(weights[name] * size for name, size in sizes.items())
    return {name: weights[name] * size / total for name, size in sizes.items()}


def role_demonstrations(
    task: Task,
    played: Rehearsal,
    settings: RoleDemonstrations,
    notebook: Notebook,
    fits_prompt: Callable[[str], bool],
) -> Iterator[tuple[str, Demonstration]]:
    """What the oracle says in its roles at the turns of an episode, with the set of each."""
    for at in range(len(played.turns)):
        yield from _Shown(task, played, at, settings, notebook, fits_prompt).all()


class _Shown:
    """The demonstrations of one turn."""

    def __init__(
        self,
        task: Task,
        played: Rehearsal,
        at: int,
        settings: RoleDemonstrations,
        notebook: Notebook,
        fits_prompt: Callable[[str], bool],
    ) -> None:
        self.settings, self.played, self.at, self.fits_prompt = settings, played, at, fits_prompt
        self.turn = played.turns[at]
        self.page = self.turn.observation
        self.actions = parse_turn(self.turn.completion.plan).actions
        self.is_over = self.actions[0].verb == "done" and at > 0 and settings.reflector
        self.reflection = read_reflection(self._reflected()) if settings.reflector else None
        self.asking = Asking(
            task=task,
            turns=played.turns[:at],
            page=self.page,
            notebook=notebook,
            fits=fits_prompt,
            # Nothing was said before the first turn.
            reflection=NO_REFLECTION if settings.reflector and not at else self.reflection,
        )

    def all(self) -> Iterator[tuple[str, Demonstration]]:
        """The set and the demonstration of each call."""
        if self.reflection is not None and self.at:
            yield from self._shown("reflecting", self.asking.reflector(), self.reflection.text)
        if self.settings.planning:
            yield from self._shown("planning", self._asked_for_change(), self._change())
        # What was done wrong on purpose is reflected on, and not imitated.
        if self.at in self.played.slips:
            return
        if not self.is_over:
            yield from self._acting()
        answer = next((action.value for action in self.actions if action.verb == "done"), None)
        if self.settings.summarizer and answer:
            yield from self._shown("summarizing", self.asking.summarizer(), answer)

    def _acting(self) -> Iterator[tuple[str, Demonstration]]:
        if not self.settings.planner:
            yield from self._shown("acting", self.asking.actor(), self._written(self._line))
            return
        write = self._named if self.settings.grounder else self._line
        plan = self._written(write)
        yield from self._shown("acting", self.asking.planner(), plan)
        if self.settings.grounder:
            for line, action in zip(read_plan(plan), self.actions, strict=True):
                if isinstance(line, Instruction):
                    yield from self._shown("grounding", grounder_prompt(self.page, line), action.ref)

    def _shown(self, name: str, prompt: str, text: str) -> Iterator[tuple[str, Demonstration]]:
        from dllm_rl.training.warmstart import Demonstration

        if self.fits_prompt(prompt):
            yield name, Demonstration(prompt=prompt, plan=text)

    def _written(self, write: Callable[[Action], str]) -> str:
        return "\n".join(write(action) for action in self.actions)

    def _line(self, action: Action) -> str:
        """An action with its ref. The answer is the Summarizer's, where there is one."""
        return "done" if action.verb == "done" and self.settings.summarizer else render_action(action)

    def _named(self, action: Action) -> str:
        """An action with the control's name in place of its ref."""
        line = self._line(action)
        return line.replace(action.ref, quote(name_of(self.page, action.ref)), 1) if action.ref else line

    def _reflected(self) -> str:
        if self.actions[0].verb == "done" and self.at:
            return "done"
        if self.page.errors:
            return f"failed {quote(self.page.errors[0])}"
        if self.at and self.at - 1 in self.played.slips:
            last = parse_turn(self.played.turns[self.at - 1].completion.plan).actions[0]
            return f"failed {quote(name_of(self.played.turns[self.at - 1].observation, last.ref))}"
        return "ok"

    def _asked_for_change(self) -> str:
        return "\n".join(("role: planning", *render_page(self.page), self.turn.completion.plan, "change:\n"))

    def _change(self) -> str:
        """What stands there afterwards that did not before."""
        following = self.played.turns[self.at + 1].observation if self.at + 1 < len(self.played.turns) else None
        if following is None:
            return "end"
        if new := [text for text in following.errors if text not in self.page.errors]:
            return f"error {quote(new[0])}"
        return "same page" if following.title == self.page.title else f"page {quote(following.title)}"


def name_of(page: Observation, ref: str) -> str:
    """How a control is called in words: by its name, after that of its group."""
    control = page.control(ref)
    assert control is not None, f"an oracle acts on {ref}"
    return f"{control.group}: {control.name}" if control.group else control.name


def collected(found: Sequence[tuple[str, Demonstration]]) -> dict[str, list[Demonstration]]:
    """Demonstrations by their set, in order."""
    sets: dict[str, list[Demonstration]] = {}
    for name, item in found:
        sets.setdefault(name, []).append(item)
    return sets
