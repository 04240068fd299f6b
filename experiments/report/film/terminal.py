"""A film in the terminal: some frames one below the other, coloured by the probability of each draw."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from experiments.report.film.record import HIDDEN, MASK, Film

NUM_FRAMES = 6
# Probability up to which a colour holds; the last one is for what is nearly certain.
_COLOURS = ((0.25, "red"), (0.5, "dark_orange"), (0.75, "yellow"), (0.95, "green"), (1.01, "bright_black"))


def print_film(film: Film, console: Console, *, num_frames: int = NUM_FRAMES) -> None:
    """Print first, last and evenly spaced frames, then the plan."""
    console.print(f"{film.title}  [{film.sampler}, {film.nfe} forwards]", markup=False, highlight=False)
    console.print(film.instruction, markup=False, highlight=False)
    last = len(film.words) - 1
    chosen = sorted({round(index * last / max(1, num_frames - 1)) for index in range(num_frames)})
    for frame in chosen:
        console.print(f"\nstep {frame} of {last}", style="bold", highlight=False)
        console.print(_frame(film, frame), soft_wrap=True)
    console.print(f"\n{film.plan}", markup=False, highlight=False)
    console.print("parses" if film.is_parsed else "does not parse", style="bold", highlight=False)


def _frame(film: Film, frame: int) -> Text:
    text, line, is_empty = Text(), Text(), True
    for column, word in enumerate(film.words[frame]):
        is_empty = is_empty and word == HIDDEN
        line.append(word, style=_style(film, frame, column, word))
        if column in film.break_after or column + 1 == len(film.words[frame]):
            if not is_empty:
                text.append(line).append("\n")
            line, is_empty = Text(), True
    return text


def _style(film: Film, frame: int, column: int, word: str) -> str:
    if word in (MASK, HIDDEN):
        return "bright_black"
    style = next(colour for limit, colour in _COLOURS if film.confidence[column] <= limit)
    return f"bold {style}" if film.step[column] == frame - 1 else style
