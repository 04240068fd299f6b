"""Which request is the form, and whether it was taken: forms of several pages, and what the user calls success."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.recorder import Criterion, Exchange, Form, submissions

SPELLINGS = {name: name for name in ("owner", "town")}
ONE_PAGE = Form(spellings=SPELLINGS, given=frozenset(SPELLINGS))


def sent(answer: str = "", status: int = 200, path: str = "/join", **fields: str) -> Exchange:
    return Exchange(
        method="POST",
        path=path,
        is_document=True,
        fields={name: (value,) for name, value in fields.items()},
        status=status,
        answer=answer.encode(),
    )


def by_script(num_before: int = 0, status: int = 200, **fields: str) -> Exchange:
    return replace(sent(status=status, **fields), is_document=False, num_before=num_before)


def shown(path: str, answer: str = "") -> Exchange:
    return Exchange(method="GET", path=path, is_document=True, fields={}, status=200, answer=answer.encode())


def in_pages(*pages: str) -> Form:
    return Form(spellings=SPELLINGS, given=frozenset(SPELLINGS), pages=tuple(frozenset(page.split()) for page in pages))


def test_a_form_of_two_pages_is_taken_with_the_second_and_carries_both() -> None:
    found = submissions([sent(owner="Ann"), sent(town="Ypres")], in_pages("owner", "town"))
    assert [(item.is_last, item.is_accepted) for item in found] == [(False, True), (True, True)]
    assert found[1].fields == {"owner": ("Ann",), "town": ("Ypres",)}


def test_a_page_that_was_refused_is_not_carried_on() -> None:
    refused = sent("<p class=error>No</p><input name=owner>", owner="A")
    found = submissions([refused, sent(owner="Ann"), sent(town="Ypres")], in_pages("owner", "town"))
    assert [item.is_accepted for item in found] == [False, True, True]
    assert found[-1].fields["owner"] == ("Ann",)


def test_a_last_page_that_only_confirms_sends_none_of_the_fields() -> None:
    found = submissions([sent(owner="Ann", town="Ypres"), sent(token="t")], in_pages("owner town", ""))
    assert [(item.is_last, item.fields.get("town")) for item in found] == [(False, ("Ypres",)), (True, ("Ypres",))]


@pytest.mark.parametrize(
    ("criterion", "complaints"),
    [
        ({"status": (201,)}, ("the application answered 303, not 201",)),
        ({"status": (303,), "path": "/thanks"}, ()),
        ({"path": "/done"}, ("the answer led to /thanks, not to /done",)),
        ({"text": "thank YOU"}, ()),
        ({"text": "hidden words"}, ("the answer does not say 'hidden words'",)),
    ],
)
def test_what_the_user_calls_success_goes_first(criterion: dict[str, Any], complaints: tuple[str, ...]) -> None:
    form = Form(spellings=SPELLINGS, given=frozenset(SPELLINGS), criterion=Criterion(**criterion))
    page = shown("/thanks", "<script>hidden words</script><p>Thank <b>you</b></p>")
    (found,) = submissions([sent(status=303, owner="Ann", town="Ypres"), page], form)
    assert found.complaints == complaints


def test_without_it_a_redirect_is_success() -> None:
    (found,) = submissions([sent(status=303, owner="Ann", town="Ypres"), shown("/thanks")], ONE_PAGE)
    assert found.is_accepted


@pytest.mark.parametrize(
    ("answer", "complaints"),
    [
        ("<h1>Sorry</h1><div class='alert alert-danger'>The database is down</div>", ("The database is down",)),
        ("<p role=alert>Thank you, Ann</p>", ()),
        ("<div class=error hidden>Something went wrong</div><h1>Thank you</h1>", ()),
    ],
)
def test_a_page_about_an_error_is_a_refusal_whatever_its_status(answer: str, complaints: tuple[str, ...]) -> None:
    (found,) = submissions([shown("/join", "<input name=owner>"), sent(answer, owner="Ann", town="Ypres")], ONE_PAGE)
    assert found.complaints == complaints


def test_a_draft_that_a_script_keeps_before_anything_is_pressed_is_not_handed_in() -> None:
    draft, form = by_script(1, owner="Ann", town=""), by_script(3, owner="Ann", town="Ypres")
    (found,) = submissions([draft, form], ONE_PAGE, pressed_after=2)
    assert found.fields["town"] == ("Ypres",)
    assert submissions([draft], ONE_PAGE, pressed_after=2) == []
    assert submissions([draft, form], ONE_PAGE, pressed_after=None) == []


def test_a_draft_counts_from_when_it_was_sent_and_not_from_when_it_was_answered() -> None:
    slow, form = by_script(1, owner="Ann", town=""), by_script(2, owner="Ann", town="Ypres")
    (found,) = submissions([form, slow], ONE_PAGE, pressed_after=2)
    assert found.fields["town"] == ("Ypres",)


@pytest.mark.parametrize("answered", [(200,), (302, 301, 200)])
def test_the_page_on_which_a_rollout_begins_is_not_the_form_whatever_its_address_says(
    answered: tuple[int, ...],
) -> None:
    said = {"owner": ("Ann",), "town": ("Ypres",)}
    start = [replace(shown("/book"), fields=said, status=status) for status in answered]
    assert submissions([*start, start[0]], ONE_PAGE, pressed_after=None) == []
    searched = replace(start[0], fields={**said, "town": ("Ghent",)}, status=200)
    assert [item.fields["town"] for item in submissions([*start, searched], ONE_PAGE)] == [("Ghent",)]


def test_a_redirect_is_followed_to_its_end() -> None:
    said = {"owner": "Ann", "town": "Ypres"}
    hop = replace(shown("/thanks"), status=301)
    form = replace(ONE_PAGE, criterion=Criterion(text="thank you"))
    (thanked,) = submissions([sent(status=303, **said), hop, shown("/thanks/", "<p>Thank you</p>")], form)
    again = shown("/join/", "<p class=error>No such town</p><input name=owner><input name=town>")
    (refused,) = submissions([sent(status=302, **said), replace(hop, path="/join"), again], ONE_PAGE)
    assert thanked.is_accepted and refused.complaints == ("No such town",)


def test_a_page_to_confirm_is_taken_after_all_others_and_nothing_else_is_taken_for_it() -> None:
    form, banner = in_pages("owner", "town", ""), sent(status=303, choice="all")
    pages = [sent(owner="Ann"), sent(town="Ypres")]
    assert submissions([banner], form) == []
    found = submissions([banner, pages[0], banner, pages[1], sent(token="t")], form)
    assert [item.is_last for item in found] == [False, False, True]
    assert found[-1].fields == {"owner": ("Ann",), "town": ("Ypres",)}
