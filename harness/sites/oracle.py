"""What the schema of a site tells before anybody looks: its observation, the plan of a task, and answers for a scout.

The observation tests the scout, the gold plan tests the whole harness. Conventions, which the in-page inventory shares:
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

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from random import Random

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import Action, render_plan
from dllm_rl.records.tasks import Condition, Control, GoldField, Observation, Task
from dllm_rl.seeding import python_random
from harness.sites.answers import all_errors, site_defaults
from harness.sites.factory import make_site
from harness.sites.newer import as_in_the_older_design, older_key
from harness.sites.schema import DISMISS, OPEN, TICKED, Answers, Extra, Site, SiteField
from harness.sites.values import draw_persona
from harness.sites.vocabulary import OBSTACLE_CAPTIONS


def expected_page(site: Site) -> Observation:
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
        for extra in page.extras:
            at += 1
            controls.append(_extra_control(extra, f"p{number}.e{at}"))
        controls.append(Control(ref=f"p{number}.e{at + 1}", kind="button", name=page.button))
    return Observation(titles=tuple(page.title for page in site.pages), controls=tuple(controls))


def obstacle_buttons(site: Site) -> Iterator[tuple[str, str]]:
    """HTML name and caption of each button of what covers the first page, in reading order."""
    for obstacle in site.behaviour.obstacles:
        for caption in OBSTACLE_CAPTIONS[obstacle].pool(site.is_held_out):
            yield f"{DISMISS}{obstacle}", caption


def _extra_control(extra: Extra, ref: str) -> Control:
    return Control(
        ref=ref,
        kind=extra.kind,
        name=extra.caption,
        options=extra.options,
        required=extra.required,
        field=extra.name,
    )


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


_TYPED = frozenset({"text", "email", "tel", "number", "date", "textarea"})


def gold_plan(task: Task, observation: Observation) -> str:
    """Write the gold values in reading order; each page's button is `next`, the last one `submit`.

    What covers the page is closed first, parts that hold a gold field are opened, and where the site refuses a number
    of times (`Behaviour.num_refusals`), the form is sent again as often. What the server demands without being a field
    of the form is given.
    """
    site = make_site(task.site)
    gold = {item.name: item for item in task.gold}
    demanded = {item.name: item for item in site.extras if item.is_demanded}
    needed = _openers(observation, gold)
    actions: list[Action] = []
    for control in observation.controls:
        if control.kind == "button" and not control.field:
            is_last = control.page_number == len(observation.titles)
            actions.append(Action(verb="submit" if is_last else "next", ref=control.ref))
        elif control.kind == "button":
            if control.ref in needed:
                actions.append(Action(verb="click", ref=control.ref))
        elif control.field in demanded:
            actions.append(_given(demanded[control.field], control.ref))
        elif control.field in gold:
            actions += actions_of(control, gold[control.field], observation)
    return render_plan((*actions, *actions[-1:] * site.behaviour.num_refusals))


def _given(extra: Extra, ref: str) -> Action:
    """Tick the box, or take the first option."""
    return Action(verb="select", ref=ref, value=extra.options[0]) if extra.options else Action(verb="check", ref=ref)


def unfinished_plan(task: Task, observation: Observation) -> str:
    """Write what a recording of the older design does on a newer site: all fields right, and nothing handed in."""
    older = replace(task, site=older_key(task.site))
    return gold_plan(older, as_in_the_older_design(observation, make_site(task.site)))


def _openers(page: Observation, gold: Collection[str]) -> set[str]:
    """Refs of the buttons that must be clicked: the first of each obstacle, and those that open what holds gold."""
    closing = {control.field: control.ref for control in reversed(page.controls) if control.field.startswith(DISMISS)}
    needed = set(closing.values())
    for control in page.controls:
        opened: Control | None = control if control.field in gold else None
        while opened is not None and opened.condition is not None:
            opened = page.control(opened.condition.ref)
            if opened is not None and opened.kind == "button":
                needed.add(opened.ref)
    return needed


def actions_of(control: Control, gold: GoldField, page: Observation) -> Iterator[Action]:
    """What brings one control to its gold value; nothing where it holds it already."""
    if control.kind in _TYPED:
        yield from (Action(verb="fill", ref=control.ref, value=value) for value in gold.wanted[:1])
    elif control.kind in ("select", "multiselect"):
        for option in control.options:
            if option in gold.wanted:
                yield Action(verb="select", ref=control.ref, value=option)
    elif control.kind == "radio":
        if control.name in gold.wanted:
            yield Action(verb="choose", ref=control.ref)
    elif control.kind == "file":
        yield from (Action(verb="upload", ref=control.ref, value=name) for name in gold.wanted)
    else:
        yield from _boxes(control, gold, page)


def _boxes(control: Control, gold: GoldField, page: Observation) -> Iterator[Action]:
    """Only boxes whose state must change are touched. A box among several of one name is told by its own."""
    is_group = sum(other.kind == "checkbox" and other.field == control.field for other in page.controls) > 1
    is_wanted = (control.name if is_group else TICKED) in gold.wanted
    if is_wanted != (control.value == "checked"):
        yield Action(verb="check" if is_wanted else "uncheck", ref=control.ref)


MAX_ATTEMPTS = 500


def scout_answers(site: Site) -> dict[str, tuple[str, ...]]:
    """Values for every field by HTML name, as visible texts.

    Any one deciding field (see `branches`) may be answered otherwise, and the server still accepts every page. Fields
    of branches that are not open have their values too; they apply once the branch is open.
    """
    extras = {item.name: item.options[:1] or (TICKED,) for item in site.extras if item.is_demanded}
    return {**_answers_of(site.key), **extras}


def branches(site: Site) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each (HTML name, answer) that opens or closes other fields."""
    deciding = {item.spec.when.field for item in site.fields if item.spec.when}
    for item in site.fields:
        if item.id in deciding:
            answers = [(text,) for text in item.texts] if item.options else [(), (TICKED,)]
            yield from ((item.name, answer) for answer in answers)


@lru_cache(maxsize=4096)
def _answers_of(key: str) -> Answers:
    site = make_site(key)
    rng = python_random(site.seed, "scout", key)
    for _ in range(MAX_ATTEMPTS):
        answers = _draw(site, rng)
        walks = [answers, *({**answers, name: answer} for name, answer in branches(site))]
        if not any(all_errors(site, walk) for walk in walks):
            return answers
    raise ConfigError(f"no answers pass all pages of site {key}. Check the rules of its form.")


def _draw(site: Site, rng: Random) -> dict[str, tuple[str, ...]]:
    """Draw every field; boxes stay as they are, unless they are required."""
    persona = draw_persona(rng, "small")
    answers = site_defaults(site)
    for item in site.fields:
        if item.options:
            answers[item.name] = (rng.choice(item.texts),)
        elif item.spec.kind == "checkbox" and item.spec.required:
            answers[item.name] = (TICKED,)
        elif item.spec.draw is not None:
            answers[item.name] = (item.written(item.spec.draw(rng, persona, "small")),)
    return answers
