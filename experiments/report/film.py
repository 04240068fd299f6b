"""Denoising films: how a plan comes to be, step by step, as data, as a page with a slider and in the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from rich.console import Console
from rich.text import Text

from dllm_rl.policies.base import BasePolicy
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.rollout import Completion
from dllm_rl.records.trajectory import confidence, frames

MASK, HIDDEN = "\u2591", "\u00b7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """What is shown.

    Attributes:
        words: Token of each column in each frame (equal lengths); MASK where nothing is written yet.
        step: The step that wrote each column's last token; -1 where it was not drawn.
        confidence: Probability of that draw.
        kind: Of each column in the end: drawn, forced, fill or padding.
        break_after: Columns after which a line ends.
    """

    title: str
    instruction: str
    sampler: str
    nfe: int
    plan: str
    is_parsed: bool
    words: list[list[str]]
    step: list[int]
    confidence: list[float]
    kind: list[str]
    break_after: list[int]

    def _repr_html_(self) -> str:
        """The page with its slider, in a frame of a notebook; scripts run in it and reach nothing outside."""
        frame = 'sandbox="allow-scripts" style="width: 100%; height: 36em; border: 0"'
        return f'<iframe title="{escape(self.title)}" {frame} srcdoc="{escape(render_film(self))}"></iframe>'


def record_film(policy: BasePolicy, completion: Completion, *, title: str, instruction: str, sampler: str) -> Film:
    """The film of a completion that was sampled. Its forwards are its batch's, which ends with its slowest row."""
    assert completion.sampled is not None
    completions, row = completion.sampled.completions, completion.sampled.row
    mask_ids = {"masked": policy.mask_id, "block": policy.mask_id, "slot": policy.mask_id, "flow": None}
    mask_id = mask_ids.get(policy.family, policy.canvas.pad_id)
    shown = frames(completions, policy.canvas.pad_id)[row]
    ids, step = completions.ids[row].tolist(), completions.trajectory.commit_step[row].tolist()
    words = [[_word(policy, token, mask_id) for token in frame] for frame in shown.tolist()]
    closed = [_word(policy, token, None) for token in ids]
    if words[-1] != closed:
        words.append(closed)
    newline = policy.canvas.newline_ids[0]
    width = policy.canvas.config.line_width
    breaks = [i for i, token in enumerate(ids) if token == newline]
    return Film(
        title=title,
        instruction=instruction,
        sampler=sampler,
        nfe=completions.nfe,
        plan=completion.plan,
        is_parsed=parse_plan(completion.plan).is_parsed and bool(completion.plan),
        words=words,
        step=step,
        confidence=[round(value, 4) for value in confidence(completions)[row].tolist()],
        kind=[_kind(policy, token, when) for token, when in zip(ids, step, strict=True)],
        break_after=breaks if width is None else list(range(width - 1, len(ids), width)),
    )


def _kind(policy: BasePolicy, token: int, step: int) -> str:
    if token == policy.canvas.pad_id:
        return "padding"
    if token == policy.canvas.fill_id:
        return "fill"
    return "drawn" if step >= 0 else "forced"


def _word(policy: BasePolicy, token: int, mask_id: int | None) -> str:
    if token == mask_id:
        return MASK
    if token in (policy.canvas.pad_id, policy.canvas.fill_id):
        return HIDDEN
    if token == policy.canvas.eos_id:
        return "\u25a0"
    text = policy.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text.replace("\n", "\u21b5") or HIDDEN


def render_film(film: Film) -> str:
    """The page. Data stand in a JSON block, in which no tag can end the script."""
    environment = Environment(
        loader=PackageLoader("experiments.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    data = json.dumps(asdict(film), ensure_ascii=True).replace("<", "\\u003c")
    return environment.get_template("film.html.j2").render(film=film, data=Markup(data))


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
