"""What solves each form-like task of MiniWoB++: from the query and the controls to a plan."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from dllm_rl.records.plan import Action, Verb, render_plan
from dllm_rl.records.tasks import Control, Page

Oracle = Callable[[str, Page], str]


def _of(page: Page, *kinds: str) -> list[Control]:
    return [control for control in page.controls if control.kind in kinds]


def _step(verb: Verb, control: Control, value: str | None = None) -> Action:
    return Action(verb=verb, ref=control.ref, value=value)


def _plan(*steps: Action) -> str:
    return render_plan(steps)


def _quoted(query: str) -> list[str]:
    return re.findall(r'"([^"]*)"', query)


def _named(page: Page, *names: str) -> list[Control]:
    return [next(control for control in page.controls if control.name == name) for name in names]


def _listed(query: str) -> list[str]:
    found = re.fullmatch(r"Select (.*) and click Submit\.", query)
    return [] if found is None or found[1] == "nothing" else found[1].split(", ")


def _fill_all(values: Callable[[str], list[str]]) -> Oracle:
    def oracle(query: str, page: Page) -> str:
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


def _choose_list(query: str, page: Page) -> str:
    wanted = query.removeprefix("Select ").removesuffix(" from the list and click Submit.")
    return _plan(_step("select", _of(page, "select")[0], wanted), _step("submit", _of(page, "button")[-1]))


def _check_listed(query: str, page: Page) -> str:
    boxes = _named(page, *_listed(query))
    return _plan(*(_step("check", box) for box in boxes), _step("submit", _of(page, "button")[-1]))


def _choose_listed(query: str, page: Page) -> str:
    (option,) = _named(page, *_listed(query))
    return _plan(_step("choose", option), _step("submit", _of(page, "button")[-1]))


def _click_buttons(*names: str) -> Oracle:
    return lambda query, page: _plan(*(_step("click", button) for button in _named(page, *names)))


def _click_quoted(query: str, page: Page) -> str:
    names = ["Close" if name == "x" else name for name in _quoted(query)]
    return _plan(*(_step("click", button) for button in _named(page, *names)))


def _ordinals(query: str) -> list[int]:
    return [int(number) - 1 for number in re.findall(r"(\d+)(?:st|nd|rd|th)", query)]


def _focus(query: str, page: Page) -> str:
    return _plan(_step("click", _of(page, "text")[_ordinals(query)[0]]))


def _choose_and_enter(query: str, page: Page) -> str:
    radio, box = _ordinals(query)
    return _plan(
        _step("choose", _of(page, "radio")[radio]),
        _step("fill", _of(page, "text", "number")[box], _quoted(query)[0]),
        _step("submit", _of(page, "button")[-1]),
    )


def _spin(query: str, page: Page) -> str:
    (number,) = re.findall(r"Select (-?\d+)", query)
    return _plan(_step("fill", _of(page, "text")[0], number), _step("submit", _of(page, "button")[-1]))


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
}
