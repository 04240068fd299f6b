"""What a site knows of one episode, and how it answers: an errand as a state machine, without HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.errands.schema import Errand, Link, Page
from harness.sites.server import Submission

Values = tuple[str, ...]
BUSY = "The service is busy and took nothing. Please send it again."
INTERRUPTED = "Your session has run out. Nothing was sent."
# Key of the page after acceptance.
DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A page as it is answered. Another answer is the key of the page that it leads to.

    Attributes:
        page: The page.
        answers: What its fields hold.
        links: The links that are shown.
        errors: Why it was refused.
        announced: What else it announces.
        notice: What covers it; "" for nothing.
        status: HTTP status.
    """

    page: Page
    answers: Mapping[str, Values]
    links: tuple[Link, ...]
    errors: Values = ()
    announced: str = ""
    notice: str = ""
    status: int = 200


@dataclass(slots=True, kw_only=True)
class Visit:
    """One episode.

    Attributes:
        answers: Values by field name, of all pages.
        seen: Keys of the pages that were shown, in order.
        counts: How often a page was refused ("busy <key>"), waited for ("wait <key>"), or interrupted.
        resume: The page that an interruption goes back to; "" for none.
        message: Message of the last answer where that was a difficulty of the task's own, else "".
        submissions: All that was handed in, in order; also pages that were refused.
    """

    errand: Errand
    answers: dict[str, Values]
    seen: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    resume: str = ""
    message: str = ""
    submissions: list[Submission] = field(default_factory=list)

    @classmethod
    def of(cls, errand: Errand) -> Visit:
        """An episode that nothing has been done in."""
        entries = [item for page in errand.pages for item in page.entries]
        return cls(errand=errand, answers={item.name: item.default for item in entries})

    @property
    def is_accepted(self) -> bool:
        """Whether the record was accepted."""
        return any(item.accepted for item in self.submissions)

    def show(self, page: Page) -> View | str:
        """Answer a request for a page."""
        self.message = ""
        if page.num_waits and self.counts[f"wait {page.key}"] >= page.num_waits:
            return page.next
        self.counts[f"wait {page.key}"] += 1
        notice = page.notice if page.key not in self.seen else ""
        self.seen.append(page.key)
        announced = INTERRUPTED if self.resume and self.resume != page.key else ""
        return self._view(page, notice=notice, announced=announced)

    def receive(self, page: Page, given: Mapping[str, Values]) -> View | str:
        """Take the answers of a page: refuse them, go on to the next page, or accept the record."""
        self.message = ""
        self.answers.update(given)
        if self.counts[f"busy {page.key}"] < page.num_refusals:
            self.counts[f"busy {page.key}"] += 1
            self.message = BUSY
            return self._view(page, announced=BUSY, status=503)
        errors = tuple(text for item in page.entries if (text := item.complaint(given[item.name])))
        if errors:
            self.submissions.append(Submission(accepted=False, fields=self._record(), errors=errors))
            return self._view(page, errors=errors, status=422)
        if page.interruption and not self.counts[f"interrupted {page.key}"]:
            self.counts[f"interrupted {page.key}"] += 1
            self.resume = page.key
            return page.interruption
        for name, value in page.gives:
            before = self.answers.get(name, ()) if page.is_adding else ()
            self.answers[name] = (*(item for item in before if item != value), value)
        following = page.after(self.answers)
        if self.resume and page.key != self.resume:
            following, self.resume = self.resume, ""
        if not following:
            self.submissions.append(Submission(accepted=True, fields=self._record()))
        return following or DONE

    def _view(
        self, page: Page, *, errors: Values = (), announced: str = "", notice: str = "", status: int = 200
    ) -> View:
        return View(
            page=page,
            answers=dict(self.answers),
            links=page.matching(self.answers),
            errors=errors,
            announced=announced,
            notice=notice,
            status=status,
        )

    def _record(self) -> dict[str, Values]:
        return {name: self.answers.get(name, ()) for name in self.errand.defaults}
