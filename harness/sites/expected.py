"""What the scout must see: the observation of a site, from its schema alone (the oracle of the observation's tests).

Conventions, which the in-page inventory shares:
- refs count every control of a page in reading order, buttons included, hidden branches included;
- radios and boxes of a group are one control an option: `group` is the legend, `name` the option's text;
- a checkbox on its own has no group; its `name` is the label;
- `options` are visible texts; an option with an empty HTML value is a placeholder and is left out;
- `value` is the untouched value: visible text of a select's option, "checked" for radios and boxes, ISO for dates;
  of a multiselect nothing is chosen at first, so it is "";
- `required` is the HTML attribute: true for each radio of a required group, never for boxes of a group;
- fields that depend on an earlier page are never on screen together; between two fields that always show they stand in
  the order of the deciding field's options (so: visit the branches in option order, and insert what is new directly
  before the next control that is already known);
- a condition names the deciding control: for radios the option to choose (with its text as value), for selects the
  option, for one box "checked".
"""

from __future__ import annotations

from collections.abc import Iterator

from dllm_rl.records.tasks import Condition, Control, Page
from harness.sites.schema import DISMISS, OPEN, TICKED, Site, SiteField
from harness.sites.wording import OBSTACLE_CAPTIONS


def expected_page(site: Site) -> Page:
    """The observation of a site: every control of every page, all branches included."""
    controls: list[Control] = []
    for number, page in enumerate(site.pages, start=1):
        at = 0
        for name, caption in obstacle_buttons(site) if number == 1 else ():
            at += 1
            controls.append(Control(ref=f"p1.e{at}", kind="button", name=caption, field=name))
        for field in page.fields:
            for control in _controls(site, field, controls, number, at):
                controls.append(control)
                at += 1
        controls.append(Control(ref=f"p{number}.e{at + 1}", kind="button", name=page.button))
    return Page(titles=tuple(page.title for page in site.pages), controls=tuple(controls))


def obstacle_buttons(site: Site) -> Iterator[tuple[str, str]]:
    """HTML name and caption of each button of what covers the first page, in reading order."""
    for obstacle in site.behaviour.obstacles:
        for caption in OBSTACLE_CAPTIONS[obstacle].pool(site.is_held_out):
            yield f"{DISMISS}{obstacle}", caption


def _controls(site: Site, field: SiteField, before: list[Control], page: int, at: int) -> list[Control]:
    kind = field.spec.kind
    condition = _condition(site, field, before)
    if kind in ("radio", "checkbox") and field.options:
        return [
            Control(
                ref=f"p{page}.e{at + offset}",
                kind=kind,
                name=option.text,
                group=field.label,
                required=field.spec.required and kind == "radio",
                value="checked" if option.text in field.default else "",
                condition=condition,
                field=field.name,
            )
            for offset, option in enumerate(field.options, start=1)
        ]
    value = field.default[0] if field.default else ""
    control = Control(
        ref=f"p{page}.e{at + 1}",
        kind=field.control_kind,
        name=field.label,
        options=() if kind == "file" else field.texts,
        required=field.spec.required and kind != "button" and field.widget != "slider",
        value="checked" if kind == "checkbox" and value == TICKED else value,
        condition=condition,
        field=field.name,
    )
    if field.widget != "picker":
        return [control]
    name, caption = f"{field.name}-calendar", f"Calendar: {field.label}"
    return [
        control,
        Control(ref=f"p{page}.e{at + 2}", kind="button", name=caption, condition=condition, field=name),
    ]


def _condition(site: Site, field: SiteField, before: list[Control]) -> Condition | None:
    """The control that decides stands before the field in reading order, on its page or an earlier one."""
    when = field.spec.when
    deciding = site.field(when.field) if when else None
    if when is None or deciding is None:
        return None
    controls = [control for control in before if control.field == deciding.name]
    if deciding.options and deciding.spec.kind in ("radio", "checkbox"):
        controls = [control for control in controls if control.name == when.answer]
    words = {"checkbox": "checked", "button": OPEN}
    return Condition(ref=controls[0].ref, value=words.get(deciding.spec.kind, when.answer))
