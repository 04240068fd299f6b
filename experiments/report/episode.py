"""One episode as text for the terminal and as one page: what was seen, remembered and written, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.text import Text

from dllm_rl.notebook import Notebook
from dllm_rl.records.rollout import Rollout, Turn
from dllm_rl.records.tasks import ActionResult, render_page

_COLOURS = {"ok": "green", "failed": "red", "malformed": "red", "skipped": "bright_black"}


def verdict(rollout: Rollout) -> str:
    """How it ended, in a line."""
    outcome = rollout.outcome
    ending = "stopped" if outcome.ending is None else outcome.ending.value
    worth = "no reward" if not outcome.is_valid else f"reward {rollout.reward.value:g}"
    return f"{ending} after {len(rollout.turns)} turns, {worth}; {outcome.notes()}"


def print_episode(rollout: Rollout, console: Console) -> None:
    """Print the turns one below the other."""
    console.print(f"{rollout.task.id}\n{rollout.task.instruction}", markup=False, highlight=False)
    for number, turn in enumerate(rollout.turns, start=1):
        console.print(f"\nturn {number}", style="bold", highlight=False)
        for line in render_page(turn.observation):
            console.print(Text(f"  {line}", style="bright_black"))
        for role, text in _calls(turn):
            console.print(Text(f"  {role}: {text}", style="cyan"))
        for action in turn.outcome.actions:
            console.print(_line(action))
        if not turn.outcome.actions:
            console.print(Text("  (nothing was written)", style="red"))
    console.print(f"\n{verdict(rollout)}", markup=False, highlight=False)


def _line(action: ActionResult) -> Text:
    text = Text(f"  {action.text}  ", style="bold")
    return text.append(action.note, style=_COLOURS[action.status])


def _calls(turn: Turn) -> list[tuple[str, str]]:
    """What each role wrote."""
    return [(call.role, call.completion.plan) for call in turn.completion.calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnView:
    """One turn as the template needs it.

    Attributes:
        calls: What each role wrote, where roles did.
        correct, wanted: Fields that hold their wanted value by its end, and all.
    """

    number: int
    title: str
    picture: str
    page: str
    notebook: str
    calls: list[tuple[str, str]]
    actions: tuple[ActionResult, ...]
    correct: int
    wanted: int


def render_episode(rollout: Rollout) -> str:
    """The page. Beside a turn stands what a policy read of earlier ones, beside an oracle's what a policy would."""
    environment = Environment(
        loader=PackageLoader("experiments.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    turns = [_view(rollout, number, turn) for number, turn in enumerate(rollout.turns)]
    page = environment.get_template("episode.html.j2")
    return page.render(rollout=rollout, turns=turns, verdict=verdict(rollout))


def _view(rollout: Rollout, number: int, turn: Turn) -> TurnView:
    page = render_page(turn.observation)
    read = turn.completion.prompt or Notebook().prompt(rollout.task, rollout.turns[:number], turn.observation)
    # The task and the page stand beside it.
    kept = read.split("\n")[1 : -len(page) - 2]
    return TurnView(
        number=number + 1,
        title=turn.observation.title,
        picture=turn.observation.picture,
        page="\n".join(page),
        notebook="\n".join(kept),
        calls=_calls(turn),
        actions=turn.outcome.actions,
        correct=sum(field.is_correct for field in turn.outcome.fields),
        wanted=len(turn.outcome.fields),
    )
