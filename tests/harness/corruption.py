"""Plans as an imperfect policy writes them: the gold plan with one or two things wrong."""

from __future__ import annotations

import random
from collections.abc import Callable

from dllm_rl.records.plan import PRESSABLE_KEYS
from dllm_rl.records.tasks import Observation

VALUES = ("", "x", "2024/01/05", "2024-01-05", "12e3", "-4", "  padded ", "a" * 300, "two\\nlines", "Søren", '\\"')
VERBS = ("fill", "click", "check", "uncheck", "choose", "clear", "select")
Lines = list[str]


def corrupted(plan: str, page: Observation, rng: random.Random) -> str:
    """Spoil a plan once or twice."""
    lines = plan.split("\n")
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(CORRUPTIONS)(lines, rng.randrange(len(lines)), [control.ref for control in page.controls], rng)
        lines = lines or [""]
    return "\n".join(lines)


def drop(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    del lines[at]


def repeat(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    lines.insert(at, lines[at])


def cut(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    del lines[at:]


def swap(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    other = rng.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def misdirect(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    words = lines[at].split(" ", 2)
    lines[at] = " ".join([words[0], rng.choice([*refs, "p9.e9"]), *words[2:]])


def misquote(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    lines.insert(at, f'fill {rng.choice(refs)} "{rng.choice(VALUES)}"')


def misact(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    lines[at] = " ".join([rng.choice(VERBS), *lines[at].split(" ", 1)[1:]])


def babble(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    lines.insert(at, rng.choice(("hello world", "fill p1.e1", 'fill p1.e1 "open', "```")))


def press(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    lines.insert(at, f'press {rng.choice(refs)} "{rng.choice(PRESSABLE_KEYS)}"')


def submit_first(lines: Lines, at: int, refs: list[str], rng: random.Random) -> None:
    lines.insert(0, lines[-1])


Corruption = Callable[[Lines, int, list[str], random.Random], None]
CORRUPTIONS: tuple[Corruption, ...] = (
    drop, repeat, cut, swap, misdirect, misquote, misact, babble, press, submit_first
)  # fmt: skip
