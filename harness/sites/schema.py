"""What a form site is made of: a specification of the form (one a kind) and the site rendered from it (one a seed).

A specification lists every wording; a site has chosen one of each. The names of HTML (`name`, `id`, option values)
belong to the site, since they vary by seed; the `id` of a FieldSpec is the same on all sites of a kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from random import Random
from typing import Literal, Protocol, get_args

from dllm_rl.records.tasks import ControlKind

Size = Literal["small", "full"]
Answers = Mapping[str, tuple[str, ...]]
TICKED = "on"
OPEN = "open"
# Buttons with a name of this kind close something that covers the page.
DISMISS = "dismiss-"
Widget = Literal["native", "password", "combobox", "picker", "slider"]
# What a newer design puts between right fields and an accepted form; see `harness.sites.newer`.
Obstacle = Literal["second_button", "consent", "review", "notice", "server_field", "second_attempt"]
OBSTACLES: tuple[Obstacle, ...] = get_args(Obstacle)
# Name of the button that keeps what was entered and hands nothing in.
DRAFT = "save-draft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """Ways to say one thing: those of training, and those kept for `test_layout`."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    def pool(self, is_held_out: bool) -> tuple[str, ...]:
        """The wordings of one side."""
        return self.held_out if is_held_out else self.train


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """The person that a task is about, so that its names and its email address agree."""

    first: str
    last: str
    email: str

    @property
    def full(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"


class Draw(Protocol):
    """Draws a value of a field. Size "full" may give longer and stranger values than "small"."""

    def __call__(self, rng: Random, persona: Persona, size: Size) -> str:
        """Draw one value."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """A field exists only while another field (by id) has this answer: an option, or "on" for a ticked box."""

    field: str
    answer: str = TICKED


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldSpec:
    """One field of a form kind.

    Attributes:
        id: Name of the field, the same on all sites of the kind.
        kind: "checkbox" with options is a group of boxes that share one name; without options it is one box. "button"
            opens further fields (those whose `when` names it) and is not an answer. "file" has file names as options.
        labels: Wordings of its label.
        draw: Draws typed values; None where options are chosen.
        options: Texts to choose from.
        is_ordered: Whether the options keep their order on every site.
        required: Whether the server refuses a form without it.
        rank: 0 for every site, 1 for small sites by seed, 2 for full sites only.
        page: Page of the wizard, from 1.
        when: The answer that makes the field exist; None for always.
        prefill: Values that an untouched page may hold, by seed ("on" for a box).
        minimum: Lower bound of a number, or an ISO date.
        maximum: Upper bound of a number, or an ISO date.
        max_length: Characters that a typed value may have; 0 for any number.
        pattern: Regular expression of the whole value.
        format_hint: Example of the pattern.
        superlatives: (option, phrase) pairs for dial 2, such as ("Basic 9", "the cheapest").
        widget: How the field is shown, unless by the browser's own control; see `SiteField.widget`.
    """

    id: str
    kind: ControlKind
    labels: Wording
    draw: Draw | None = None
    options: tuple[str, ...] = ()
    is_ordered: bool = False
    required: bool = False
    rank: int = 0
    page: int = 1
    when: When | None = None
    prefill: tuple[str, ...] = ()
    minimum: str = ""
    maximum: str = ""
    max_length: int = 0
    pattern: str = ""
    format_hint: str = ""
    superlatives: tuple[tuple[str, str], ...] = ()
    widget: Widget = "native"

    @property
    def is_multiple(self) -> bool:
        """Several answers at once."""
        return self.kind == "multiselect" or (self.kind == "checkbox" and bool(self.options))


class Rule(Protocol):
    """A check over several fields that only the server makes. Answers come by field id."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Ids of the fields that the rule reads."""
        ...

    def error(self, answers: Answers, labels: Mapping[str, str]) -> str | None:
        """The message for answers that break the rule, or None."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSpec:
    """One page of a form: its headings."""

    titles: Wording


@dataclass(frozen=True, slots=True, kw_only=True)
class FormSpec:
    """One kind of form. With `has_review`, a last page shows all answers and asks to confirm them."""

    kind: str
    domain: str
    pages: tuple[PageSpec, ...]
    fields: tuple[FieldSpec, ...]
    rules: tuple[Rule, ...] = ()
    has_review: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a site. text is what is seen, and what every record of ours speaks of; value is its HTML value."""

    text: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteField:
    """One field of a rendered site.

    Attributes:
        spec: The field of the form kind.
        name: HTML attribute.
        html_id: HTML attribute `id`.
        label: The wording of this site.
        options: The options of this site, in order.
        default: What an untouched page sends; () for nothing or an empty text.
        placeholder: Caption of the empty first option of a select; "" without one.
        widget: "combobox" (an option typed into a text field), "picker" (a date typed in `date_format` or picked from a
            calendar), "slider" (a number, in steps), "password", or "native".
        date_format: Format of strptime; "" for ISO.
        step: Step of a slider.
    """

    spec: FieldSpec
    name: str
    html_id: str
    label: str
    options: tuple[Option, ...] = ()
    default: tuple[str, ...] = ()
    placeholder: str = ""
    widget: Widget = "native"
    date_format: str = ""
    step: int = 0

    @property
    def id(self) -> str:
        """Name of the field in its form kind."""
        return self.spec.id

    @property
    def control_kind(self) -> ControlKind:
        """Kind of the control that a reader of the page sees."""
        return "text" if self.widget in ("combobox", "picker") else self.spec.kind

    def iso(self, text: str) -> str:
        """Convert a date of this site to ISO; "" for a text that is not a date."""
        if not self.date_format:
            return text
        try:
            return datetime.strptime(text, self.date_format).strftime("%Y-%m-%d")
        except ValueError:
            return ""

    def written(self, value: str) -> str:
        """Write a value in the format of this site."""
        return date.fromisoformat(value).strftime(self.date_format) if self.date_format else value

    @property
    def texts(self) -> tuple[str, ...]:
        """Visible texts of the options."""
        return tuple(option.text for option in self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """A control between the fields of a page and its button. It is not a field of the form, and no task asks for it.

    Attributes:
        name: HTML attribute.
        kind: "button", "checkbox" or "select".
        caption: Its label.
        options: Texts to choose from; the server takes any of them.
    """

    name: str
    kind: ControlKind
    caption: str
    options: tuple[str, ...] = ()

    @property
    def is_demanded(self) -> bool:
        """Whether the server refuses a form without it."""
        return self.kind != "button"

    @property
    def required(self) -> bool:
        """The HTML attribute: the page itself asks for a box alone."""
        return self.kind == "checkbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePage:
    """One page of a site: fields in reading order, extras, then one button. A review page has no fields."""

    title: str
    fields: tuple[SiteField, ...]
    button: str
    is_review: bool = False
    extras: tuple[Extra, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a site does beside showing its pages. It belongs to the task and is never an environment fault.

    Attributes:
        difficulty: 0 for the basic world.
        obstacles: What covers the first page until it is closed ("cookies", "notice").
        num_refusals: How often the last page is answered 503 before the form is accepted.
        refusal: What such an answer says.
        seconds: Delay of every answer.
        look: The visual theme; "" for the basic world.
    """

    difficulty: int = 0
    obstacles: tuple[str, ...] = ()
    num_refusals: int = 0
    refusal: str = "The service is busy and nothing was saved. Please send the form again."
    seconds: float = 0.0
    look: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One rendered instance of a form kind; everything in it follows from `key`.

    Attributes:
        has_native_validation: Whether the browser checks the form before it is sent; else only the server does.
        done: Heading of the page after acceptance.
        obstacle: What the newer design put in the way; None for the older design.
    """

    key: str
    form: FormSpec
    size: Size
    layout: str
    seed: int
    is_held_out: bool
    brand: str
    theme: str
    has_native_validation: bool
    done: str
    pages: tuple[SitePage, ...]
    behaviour: Behaviour = Behaviour()
    obstacle: Obstacle | None = None

    @property
    def fields(self) -> tuple[SiteField, ...]:
        """All fields of all pages, in reading order."""
        return tuple(item for page in self.pages for item in page.fields)

    @property
    def extras(self) -> tuple[Extra, ...]:
        """All controls of all pages that are no fields of the form."""
        return tuple(item for page in self.pages for item in page.extras)

    def field(self, spec_id: str) -> SiteField | None:
        """The field with this FieldSpec id, or None where this site does not have it."""
        return next((item for item in self.fields if item.id == spec_id), None)
