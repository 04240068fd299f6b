"""The site server over plain HTTP: what it accepts, refuses and remembers."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import pytest

from dllm_rl.records.tasks import SPLITS, Task
from harness.sites import Site, SiteServer, make_site, make_tasks, page_errors, scout_answers, site_defaults
from harness.sites.answers import is_visible
from harness.sites.forms import forms
from harness.sites.generate import site_keys
from harness.sites.schema import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    url: str
    text: str


def _send(url: str, form: list[tuple[str, str]] | None = None) -> Reply:
    data = None if form is None else urllib.parse.urlencode(form).encode()
    try:
        with urllib.request.urlopen(url, data=data, timeout=20) as response:
            return Reply(status=response.status, url=response.url, text=response.read().decode())
    except urllib.error.HTTPError as error:
        return Reply(status=error.code, url=error.url or "", text=error.read().decode())


def encode(site: Site, number: int, answers: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    """What a browser would send for one page: HTML values of open fields, empty texts included."""
    form: list[tuple[str, str]] = []
    for item in site.pages[number - 1].fields:
        if not is_visible(site, item, answers):
            continue
        values = {option.text: option.value for option in item.options}
        sent = [values.get(value, value) for value in answers[item.name]]
        if not sent and (item.spec.draw is not None or item.spec.kind == "select"):
            sent = [""]
        form += [(item.name, value.replace("\n", "\r\n")) for value in sent]
    return form


async def walk(server: SiteServer, site: Site, rollout: str, answers: Mapping[str, tuple[str, ...]]) -> Reply:
    """Send every page in turn, until one is refused."""
    reply = await asyncio.to_thread(_send, server.start_url(site.key, rollout))
    for number in range(1, len(site.pages) + 1):
        action = re.search(r'<form method="post" action="([^"]+)"', reply.text)
        assert action is not None
        url = urllib.parse.urljoin(server.base_url, action[1])
        reply = await asyncio.to_thread(_send, url, encode(site, number, answers))
        if reply.status != 200:
            break
    return reply


def serve(use: Callable[[SiteServer], Awaitable[None]]) -> None:
    async def run() -> None:
        server = SiteServer()
        await server.start()
        try:
            await use(server)
        finally:
            await server.stop()

    asyncio.run(run())


def gold_answers(task: Task) -> dict[str, tuple[str, ...]]:
    return {**site_defaults(make_site(task.site)), **{item.name: item.wanted for item in task.gold}}


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_gold_payload_is_accepted_and_received_as_wanted(size: Size) -> None:
    count = 2 * len(forms())
    tasks = [task for split in SPLITS for task in make_tasks(split, count=count, size=size)]

    async def use(server: SiteServer) -> None:
        for at, task in enumerate(tasks):
            site, wanted = make_site(task.site), gold_answers(task)
            reply = await walk(server, site, f"gold-{at}", wanted)
            assert reply.status == 200
            assert reply.url.endswith("/done")
            (submission,) = server.submissions(f"gold-{at}")
            assert submission.accepted
            assert submission.errors == ()
            assert {name: set(values) for name, values in submission.fields.items()} == {
                name: set(values) for name, values in wanted.items()
            }
            assert server.pages_reached(f"gold-{at}") == len(site.pages)

    serve(use)


def test_a_missing_answer_comes_back_as_an_error_page() -> None:
    async def use(server: SiteServer) -> None:
        for kind in forms():
            site = make_site(site_keys("train", kind)[1])
            rollout = f"empty-{kind}"
            reply = await walk(server, site, rollout, site_defaults(site))
            assert reply.status == 422
            assert 'role="alert"' in reply.text
            (submission,) = server.submissions(rollout)
            assert not submission.accepted
            assert submission.errors == page_errors(site, 1, site_defaults(site))
            assert server.pages_reached(rollout) == 1

    serve(use)


@pytest.mark.parametrize(
    ("kind", "field", "value", "message"),
    [
        ("contact", "email", "no-address", "not an email address"),
        ("table", "people", "99", "must be from 1 to 16"),
        ("table", "people", "many", "not a number"),
        ("table", "evening", "2030-01-01", "must be from"),
        ("table", "evening", "31.12.2026", "not a date"),
        ("table", "phone", "12", "write it as 555-0123"),
        ("contact", "topic", "Nonsense", "no such option"),
    ],
)
def test_formats_and_ranges_are_checked_by_the_server(kind: str, field: str, value: str, message: str) -> None:
    site = make_site(site_keys("train", kind)[0])
    item = site.field(field)
    assert item is not None

    async def use(server: SiteServer) -> None:
        reply = await walk(server, site, "bad", {**scout_answers(site), item.name: (value,)})
        assert reply.status == 422
        assert message in server.submissions("bad")[-1].errors[0]

    serve(use)


@pytest.mark.parametrize(
    ("kind", "first", "second"), [("hotel", "check_in", "check_out"), ("rental", "pick_up", "bring_back")]
)
def test_the_order_of_two_dates_is_checked_by_the_server_only(kind: str, first: str, second: str) -> None:
    site = make_site(site_keys("train", kind)[0])
    one, two = site.field(first), site.field(second)
    assert one is not None
    assert two is not None

    async def use(server: SiteServer) -> None:
        answers = {**scout_answers(site), one.name: ("2026-05-02",), two.name: ("2026-05-01",)}
        reply = await walk(server, site, "order", answers)
        assert reply.status == 422
        assert server.submissions("order")[-1].errors == (f"{two.label} must be after {one.label}",)
        corrected = await walk(server, site, "order", scout_answers(site))
        assert corrected.url.endswith("/done")
        assert [item.accepted for item in server.submissions("order")] == [False, True]

    serve(use)


def test_a_later_page_depends_on_an_earlier_answer() -> None:
    site = make_site(site_keys("train", "insurance")[0])
    cover, make, rooms = site.field("cover"), site.field("make"), site.field("rooms")
    assert cover is not None
    assert make is not None
    assert rooms is not None

    async def use(server: SiteServer) -> None:
        for choice, shown, hidden in (("Car", make, rooms), ("Home", rooms, make)):
            start = server.start_url(site.key, choice)
            answers = {**scout_answers(site), cover.name: (choice,)}
            page = await asyncio.to_thread(_send, start, encode(site, 1, answers))
            assert shown.html_id in page.text
            assert hidden.html_id not in page.text

    serve(use)


def test_pages_cannot_be_skipped_and_rollouts_never_meet() -> None:
    site = make_site(site_keys("train", "job")[0])

    async def use(server: SiteServer) -> None:
        await walk(server, site, "one", scout_answers(site))
        reply = await asyncio.to_thread(_send, server.start_url(site.key, "two") + "3")
        assert reply.url == server.start_url(site.key, "two")
        assert server.submissions("two") == ()
        done = await asyncio.to_thread(_send, server.start_url(site.key, "two") + "done")
        assert done.status == 404
        server.forget("one")
        assert server.submissions("one") == ()

    serve(use)


def test_a_second_submission_is_recorded_too() -> None:
    site = make_site(site_keys("train", "contact")[0])

    async def use(server: SiteServer) -> None:
        for _ in range(2):
            await walk(server, site, "twice", scout_answers(site))
        assert [item.accepted for item in server.submissions("twice")] == [True, True]

    serve(use)


def test_a_site_that_does_not_exist_is_a_404() -> None:
    async def use(server: SiteServer) -> None:
        reply = await asyncio.to_thread(_send, server.start_url("contact.small.L3.sX", "one"))
        assert reply.status == 404

    serve(use)
