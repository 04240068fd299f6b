"""A site's pages as HTML: plain, accessible, no asset from outside; equal site and answers give equal bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader
from markupsafe import Markup

from dllm_rl.seeding import python_random
from harness.sites import vocabulary
from harness.sites.answers import is_visible
from harness.sites.factory import LAYOUTS
from harness.sites.oracle import obstacle_buttons
from harness.sites.schema import DRAFT, TICKED, Answers, Extra, Option, Site, SiteField

_TEMPLATES = Path(__file__).parent / "templates"
_RICH_TEMPLATES = Path(__file__).parent / "rich" / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldView:
    """One field as a template needs it.

    Attributes:
        when_name: HTML name of the field that opens it on this page; "" for none.
        when_value: HTML value that opens it.
    """

    id: str
    name: str
    kind: str
    label: str
    values: tuple[str, ...]
    options: tuple[Option, ...]
    placeholder: str
    required: bool
    minimum: str = ""
    maximum: str = ""
    max_length: int = 0
    pattern: str = ""
    hint: str = ""
    is_open: bool = True
    when_name: str = ""
    when_value: str = ""
    widget: str = "native"
    date_format: str = ""
    step: int = 0

    @property
    def value(self) -> str:
        """The text of a field that is typed into."""
        return self.values[0] if self.values else ""

    @property
    def is_group(self) -> bool:
        """Radios, or boxes under one name."""
        return self.kind in ("radio", "checkbox") and bool(self.options)

    @property
    def tick_value(self) -> str:
        """The HTML value of a box on its own."""
        return TICKED


def render_form_page(
    site: Site,
    number: int,
    answers: Answers,
    errors: tuple[str, ...],
    action: str,
    *,
    notice: str = "",
    is_new: bool = False,
) -> str:
    """Render a page of the form with these answers in its fields; errors and a notice stand on top.

    Args:
        site: The site.
        number: Number of the page, from 1.
        answers: Answers by HTML name.
        errors: Messages of the server.
        action: Address that the form is sent to.
        notice: A message that is not an error.
        is_new: Whether the page is looked at for the first time; only then is it covered.
    """
    page = site.pages[number - 1]
    fields = [_view(site, item, number, answers) for item in page.fields if _is_on_page(site, item, number, answers)]
    template = "review.html" if page.is_review else LAYOUTS[site.layout].template
    return (
        _templates(is_rich=bool(site.behaviour.look))
        .get_template(template)
        .render(
            **_frame(site, page.title),
            number=number,
            fields=fields,
            errors=errors,
            wrong=python_random(site.seed, "site wrong").choice(vocabulary.WRONG.pool(site.is_held_out)),
            action=action,
            button=page.button,
            draft=DRAFT,
            extras=[_extra_view(item, at, number, answers) for at, item in enumerate(page.extras, start=1)],
            button_id=f"b{number}",
            has_reveal=any(item.when_name for item in fields),
            script=Markup(_text("reveal.js")),
            summary=_summary(site, answers) if page.is_review else (),
            has_files=any(item.kind == "file" for item in fields),
            notice=notice,
            obstacles=site.behaviour.obstacles if number == 1 and is_new else (),
            captions=tuple(obstacle_buttons(site)),
            widgets=Markup(_text("widgets.js", is_rich=True)),
        )
    )


def render_done(site: Site) -> str:
    """The page after acceptance. The reference follows from the site alone."""
    reference = hashlib.blake2b(site.key.encode(), digest_size=3).hexdigest().upper()
    templates = _templates(is_rich=bool(site.behaviour.look))
    return templates.get_template("done.html").render(**_frame(site, site.done), reference=reference)


def _frame(site: Site, title: str) -> dict[str, object]:
    layout = LAYOUTS[site.layout].template.removesuffix(".html")
    css = _text("rich.css", is_rich=True) if site.behaviour.look else _text("site.css")
    css += _text("newer.css") if site.obstacle else ""
    return {"site": site, "title": title, "layout": layout, "css": Markup(css)}


def _is_on_page(site: Site, field: SiteField, number: int, answers: Answers) -> bool:
    """Branches of an earlier page are decided here; those of this page are all sent, and opened by its script."""
    return _opener(site, field, number) is not None or is_visible(site, field, answers)


def _opener(site: Site, field: SiteField, number: int) -> SiteField | None:
    when = field.spec.when
    return next((item for item in site.pages[number - 1].fields if when and item.id == when.field), None)


def _view(site: Site, field: SiteField, number: int, answers: Answers) -> FieldView:
    spec, opener = field.spec, _opener(site, field, number)
    when_value = ""
    if opener is not None and spec.when is not None:
        when_value = next((item.value for item in opener.options if item.text == spec.when.answer), TICKED)
    return FieldView(
        id=field.html_id,
        name=field.name,
        kind=spec.kind,
        label=field.label,
        values=answers.get(field.name, ()),
        options=field.options,
        placeholder=field.placeholder,
        required=spec.required,
        minimum=spec.minimum,
        maximum=spec.maximum,
        max_length=spec.max_length,
        pattern=spec.pattern,
        hint=spec.format_hint,
        is_open=is_visible(site, field, answers),
        when_name=opener.name if opener else "",
        when_value=when_value,
        widget=field.widget,
        date_format=field.date_format,
        step=field.step,
    )


def _extra_view(extra: Extra, at: int, number: int, answers: Answers) -> FieldView:
    return FieldView(
        id=f"x{number}-{at}",
        name=extra.name,
        kind=extra.kind,
        label=extra.caption,
        values=answers.get(extra.name, ()),
        options=tuple(Option(text=text, value=text) for text in extra.options),
        placeholder="-",
        required=extra.required,
    )


def _summary(site: Site, answers: Answers) -> list[tuple[str, str]]:
    shown = [item for item in site.fields if is_visible(site, item, answers) and item.spec.kind != "button"]
    return [(item.label, _readable(item, answers.get(item.name, ()))) for item in shown]


def _readable(field: SiteField, values: tuple[str, ...]) -> str:
    if field.spec.kind == "checkbox" and not field.options:
        return "yes" if values else "no"
    if field.widget == "password":
        return "\u2022" * 8
    return ", ".join(values) or "-"


@cache
def _templates(*, is_rich: bool) -> Environment:
    """Templates of the rich world stand before those of the basic one, which it names `basic/...`."""
    basic = FileSystemLoader(_TEMPLATES)
    loader = ChoiceLoader([FileSystemLoader(_RICH_TEMPLATES), basic, PrefixLoader({"basic": basic})])
    return Environment(loader=loader if is_rich else basic, autoescape=True, trim_blocks=True, lstrip_blocks=True)


@cache
def _text(name: str, *, is_rich: bool = False) -> str:
    return ((_RICH_TEMPLATES if is_rich else _TEMPLATES) / name).read_text(encoding="utf-8")
