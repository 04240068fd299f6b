"""Plans that solve tasks of MiniWoB++, from the query and the observation that a policy has too."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import Action, Verb, render_plan
from dllm_rl.records.tasks import Control, Observation

Oracle = Callable[[str, Observation], str]


def _of(page: Observation, *kinds: str) -> list[Control]:
    return [control for control in page.controls if control.kind in kinds]


def _step(verb: Verb, control: Control, value: str | None = None) -> Action:
    return Action(verb=verb, ref=control.ref, value=value)


def _plan(*steps: Action) -> str:
    return render_plan(steps)


def _quoted(query: str) -> list[str]:
    return re.findall(r'"([^"]*)"', query)


def _named(page: Observation, *names: str) -> list[Control]:
    return [next(control for control in page.controls if control.name == name) for name in names]


def _listed(query: str) -> list[str]:
    found = re.fullmatch(r"Select (.*) and click Submit\.", query)
    return [] if found is None or found[1] == "nothing" else found[1].split(", ")


def _fill_all(values: Callable[[str], list[str]]) -> Oracle:
    def oracle(query: str, page: Observation) -> str:
        fields, wanted = _of(page, "text", "date"), values(query)
        fills = zip(fields, wanted if len(wanted) == len(fields) else wanted * len(fields), strict=True)
        return _plan(*(_step("fill", field, value) for field, value in fills), _step("submit", _of(page, "button")[-1]))

    return oracle


def _in_case(query: str) -> list[str]:
    (text,) = _quoted(query)
    return [text.upper() if "upper case" in query else text.lower()]


def _date(query: str) -> list[str]:
    (text,) = re.findall(r"\d\d/\d\d/\d{4}", query)
    return [datetime.strptime(text, "%m/%d/%Y").strftime("%Y-%m-%d")]


def _time(query: str) -> list[str]:
    (text,) = re.findall(r"\d+:\d\d [AP]M", query.replace("\u202f", " "))
    return [datetime.strptime(text, "%I:%M %p").strftime("%H:%M")]


def _choose_list(query: str, page: Observation) -> str:
    wanted = query.removeprefix("Select ").removesuffix(" from the list and click Submit.")
    return _plan(_step("select", _of(page, "select")[0], wanted), _step("submit", _of(page, "button")[-1]))


def _check_listed(query: str, page: Observation) -> str:
    boxes = _named(page, *_listed(query))
    return _plan(*(_step("check", box) for box in boxes), _step("submit", _of(page, "button")[-1]))


def _choose_listed(query: str, page: Observation) -> str:
    (option,) = _named(page, *_listed(query))
    return _plan(_step("choose", option), _step("submit", _of(page, "button")[-1]))


def _click_buttons(*names: str) -> Oracle:
    return lambda query, page: _plan(*(_step("click", button) for button in _named(page, *names)))


def _click_quoted(query: str, page: Observation) -> str:
    names = ["Close" if name == "x" else name for name in _quoted(query)]
    return _plan(*(_step("click", button) for button in _named(page, *names)))


def _ordinals(query: str) -> list[int]:
    return [int(number) - 1 for number in re.findall(r"(\d+)(?:st|nd|rd|th)", query)]


def _focus(query: str, page: Observation) -> str:
    return _plan(_step("click", _of(page, "text")[_ordinals(query)[0]]))


def _choose_and_enter(query: str, page: Observation) -> str:
    radio, box = _ordinals(query)
    return _plan(
        _step("choose", _of(page, "radio")[radio]),
        _step("fill", _of(page, "text", "number")[box], _quoted(query)[0]),
        _step("submit", _of(page, "button")[-1]),
    )


def _spin(query: str, page: Observation) -> str:
    (number,) = re.findall(r"Select (-?\d+)", query)
    # The page forbids to type into it.
    key = "ArrowUp" if int(number) > 0 else "ArrowDown"
    presses = [_step("press", _of(page, "text")[0], key)] * abs(int(number))
    return _plan(*presses, _step("submit", _of(page, "button")[-1]))


def _scroll_list(query: str, page: Observation) -> str:
    wanted = query.removeprefix("Select ").removesuffix(" from the scroll list and click Submit.").split(", ")
    (options,) = _of(page, "multiselect")
    return _plan(*(_step("select", options, name) for name in wanted), _step("submit", _of(page, "button")[-1]))


def _copy(query: str, page: Observation) -> str:
    """The text of the area that the query means, or of the only one."""
    areas, at = _of(page, "textarea"), _ordinals(query) or [0]
    return _enter(areas[at[0]].value, page)


def _last_word(query: str, page: Observation) -> str:
    return _enter(_of(page, "textarea")[0].value.split()[-1].rstrip("."), page)


def _enter(text: str, page: Observation) -> str:
    return _plan(_step("fill", _of(page, "text")[0], text), _step("submit", _of(page, "button")[-1]))


def _click_kind(query: str, page: Observation) -> str:
    (kind,) = _quoted(query)
    verbs: dict[str, Verb] = {"radio": "choose", "checkbox": "check"}
    return _plan(_step(verbs.get(kind, "click"), _of(page, kind)[0]))


def _click_tab(query: str, page: Observation) -> str:
    (name,) = re.findall(r"Tab #\d", query)
    return _plan(_step("click", _named(page, name)[0]))


def _click_first(*kinds: str) -> Oracle:
    return lambda query, page: _plan(_step("click", _of(page, *kinds)[0]))


def _similar(query: str, page: Observation) -> str:
    """The boxes whose words stand in the package's own list beside those of the query."""
    words = query.removeprefix("Select words similar to ").removesuffix(" and click Submit.").split(", ")
    wanted = {other for alike in _synonyms() if alike & set(words) for other in alike}
    boxes = [box for box in _of(page, "checkbox") if box.name in wanted]
    return _plan(*(_step("check", box) for box in boxes), _step("submit", _of(page, "button")[-1]))


@cache
def _synonyms() -> list[frozenset[str]]:
    text = (html_folder() / "miniwob" / "click-checkboxes-soft.html").read_text()
    found = re.search(r"var SYNONYMS = \[(.*?)\n\];", text, re.DOTALL)
    assert found is not None
    return [frozenset(re.findall(r"'(\w+)'", row)) for row in re.findall(r"\[([^\]]*)\]", found[1])]


# Of CSS, as far as the page names them.
COLOURS = {
    "black": "000000", "white": "ffffff", "aqua": "00ffff", "blue": "0000ff", "gray": "808080", "green": "008000",
    "lime": "00ff00", "maroon": "800000", "navy": "000080", "olive": "808000", "purple": "800080", "red": "ff0000",
    "silver": "c0c0c0", "teal": "008080", "yellow": "ffff00", "pink": "ffc0cb", "magenta": "ff00ff", "gold": "ffd700",
    "orange": "ffa500",
}  # fmt: skip


def _colour(query: str, page: Observation) -> str:
    return _enter(COLOURS[query.split(" ")[1]], page)


def _start_and_end(query: str, page: Observation) -> str:
    """Anything that begins and ends so is taken; the list that opens lies over the button until it is closed."""
    (field,) = _of(page, "text")
    fill, submit = _step("fill", field, "".join(_quoted(query))), _step("submit", _of(page, "button")[-1])
    return _plan(fill, _step("press", field, "Escape"), submit)


def _read(page: Observation) -> list[str]:
    return [passage.text for passage in page.passages]


def _arithmetic(query: str, page: Observation) -> str:
    (problem,) = (text for text in _read(page) if text.endswith("="))
    left, sign, right = problem.removesuffix("=").split()
    results = {"+": int(left) + int(right), "-": int(left) - int(right), "x": int(left) * int(right)}
    return _enter(str(results[sign]), page)


def _algebra(query: str, page: Observation) -> str:
    """`x + a = b`, `x - a = b`, `a + x = b` or `a - x = b`."""
    left, sign, right, _, total = next(text for text in _read(page) if not text.endswith("=")).split()
    given = int(right if left == "x" else left)
    if sign == "+":
        return _enter(str(int(total) - given), page)
    return _enter(str(int(total) + given if left == "x" else given - int(total)), page)


def _find_word(query: str, page: Observation) -> str:
    words = " ".join(_read(page)).split()
    return _enter(re.sub(r"[^a-zA-Z]", "", words[_ordinals(query)[0]]), page)


def _table(page: Observation) -> dict[str, str]:
    return dict(text.split(": ", 1) for text in _read(page) if ": " in text)


def _read_table(query: str, page: Observation) -> str:
    key = query.removeprefix("Enter the value of ").removesuffix(" into the text field and press Submit.")
    return _enter(_table(page)[key], page)


def _read_table_2(query: str, page: Observation) -> str:
    fields, table = _of(page, "text"), _table(page)
    fills = (_step("fill", field, table[field.name]) for field in fields)
    return _plan(*fills, _step("submit", _of(page, "button")[-1]))


def _odd_or_even(query: str, page: Observation) -> str:
    numbers = [int(text) for text in _read(page)]
    buttons = {name: [item for item in page.controls if item.name == name] for name in ("Odd", "Even")}
    clicks = (_step("click", buttons["Odd" if number % 2 else "Even"][at]) for at, number in enumerate(numbers))
    return _plan(*clicks, _step("submit", _of(page, "button")[-1]))


def _transformed(query: str, page: Observation) -> str:
    return _enter("".join(_read(page)).replace(" ", ""), page)


ORACLES: dict[str, Oracle] = {
    "enter-text": _fill_all(_quoted),
    "enter-text-2": _fill_all(_in_case),
    "enter-text-dynamic": _fill_all(_quoted),
    "enter-password": _fill_all(_quoted),
    "login-user": _fill_all(_quoted),
    "enter-date": _fill_all(_date),
    "enter-time": _fill_all(_time),
    "choose-list": _choose_list,
    "click-checkboxes": _check_listed,
    "click-checkboxes-large": _check_listed,
    "click-checkboxes-transfer": _check_listed,
    "click-option": _choose_listed,
    "click-test": _click_buttons("Click Me!"),
    "click-test-2": _click_buttons("ONE"),
    "click-test-transfer": _click_buttons("ONE"),
    "click-button": _click_quoted,
    "click-button-sequence": _click_buttons("ONE", "TWO"),
    "click-dialog-2": _click_quoted,
    "focus-text-2": _focus,
    "form-sequence-2": _choose_and_enter,
    "use-spinner": _spin,
    "unicode-test": _click_quoted,
    "click-scroll-list": _scroll_list,
    "copy-paste": _copy,
    "copy-paste-2": _copy,
    "scroll-text": _last_word,
    "use-autocomplete": _start_and_end,
    "click-widget": _click_kind,
    "click-tab": _click_tab,
    "click-dialog": _click_first("button"),
    "focus-text": _click_first("text"),
    "use-autocomplete-nodelay": _start_and_end,
    "click-checkboxes-soft": _similar,
    "use-colorwheel": _colour,
    "simple-arithmetic": _arithmetic,
    "simple-algebra": _algebra,
    "find-word": _find_word,
    "read-table": _read_table,
    "read-table-2": _read_table_2,
    "odd-or-even": _odd_or_even,
    "text-transform": _transformed,
}
# Tasks that ask for what the page says beside its controls.
READ_FROM_TEXT = frozenset(
    {"simple-arithmetic", "simple-algebra", "find-word", "read-table", "read-table-2", "odd-or-even", "text-transform"}
)


def html_folder() -> Path:
    """The package's pages. Raises ConfigError where it is not installed."""
    found = importlib.util.find_spec("miniwob")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the package 'miniwob' is not installed. Install it: pip install 'dllm-rl[miniwob]'")
    return Path(found.submodule_search_locations[0]) / "html"
