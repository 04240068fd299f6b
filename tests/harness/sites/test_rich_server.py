"""What the server of the rich world makes of what is sent: files, accounts, rows, and answers it gives on purpose."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from harness.sites import Site, SiteServer, make_site, scout_answers
from harness.sites.public_sites import PublicSites
from harness.sites.rich import make_rich_tasks, rich_forms
from harness.sites.schema import SitePage
from harness.sites.values import content_of

BOUNDARY = "xxboundaryxx"


def find_site(is_wanted: Callable[[Site], object], difficulty: int = 3) -> Site:
    layouts = (f"L{1 + seed % 6}.s{seed}" for seed in range(400))
    keys = (f"rich.{kind}.d{difficulty}.{layout}" for layout in layouts for kind in rich_forms())
    return next(site for key in keys if is_wanted(site := make_site(key)))


def post(url: str, sent: list[tuple[str, str]], files: dict[str, tuple[str, bytes]]) -> tuple[int, str]:
    """Send a form as a browser does; files: by field, name and content."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in sent
    ]
    body = "".join(parts).encode()
    for field, (name, content) in files.items():
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    body += f"--{BOUNDARY}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=kind)) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def fields_of(page: SitePage, answers: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    html = {item.name: {option.text: option.value for option in item.options} for item in page.fields}
    return [
        (item.name, html[item.name].get(text, text))
        for item in page.fields
        if item.spec.kind != "file"
        for text in answers[item.name]
    ]


def served(work: Callable[[SiteServer], Any]) -> Any:
    async def run() -> Any:
        server = SiteServer()
        await server.start()
        try:
            return await asyncio.to_thread(work, server)
        finally:
            await server.stop()

    return asyncio.run(run())


def test_a_busy_site_answers_503_once_and_keeps_its_own_log() -> None:
    site = find_site(lambda found: found.behaviour.num_refusals and len(found.pages) == 1)
    sent = fields_of(site.pages[0], scout_answers(site))

    def work(server: SiteServer) -> None:
        url = server.start_url(site.key, "r1")
        status, html = post(url, sent, {})
        assert (status, 'role="alert"' in html) == (503, True)
        assert "busy" in server.injected("r1")
        assert server.submissions("r1") == ()
        assert post(url, sent, {})[0] == 200
        assert server.injected("r1") == ""
        assert server.injections("r1") == ("busy",)
        assert [item.accepted for item in server.submissions("r1")] == [True]

    served(work)


def test_a_file_must_arrive_whole_and_be_one_of_those_at_hand() -> None:
    site = find_site(
        lambda found: len(found.pages) == 1 and any(item.spec.kind == "file" for item in found.fields), difficulty=2
    )
    page, answers = site.pages[0], scout_answers(site)
    field = next(item for item in page.fields if item.spec.kind == "file")
    sent, name = fields_of(page, answers), field.texts[0]

    def work(server: SiteServer) -> None:
        for at, (given, content, is_accepted) in enumerate(
            [
                (name, content_of(name), True),
                (name, b"something else", False),
                ("other.pdf", content_of("other.pdf"), False),
            ]
        ):
            post(server.start_url(site.key, f"r{at}"), sent, {field.name: (given, content)})
            (submission,) = server.submissions(f"r{at}")
            assert submission.accepted == is_accepted, submission.errors
            assert is_accepted == (submission.fields[field.name] == (name,))

    served(work)


def test_only_the_password_of_an_account_opens_the_next_page() -> None:
    site = find_site(lambda found: found.form.kind == "account_settings")
    page, answers = site.pages[0], scout_answers(site)
    password = next(item.name for item in page.fields if item.widget == "password")

    def work(server: SiteServer) -> None:
        url = server.start_url(site.key, "r1")
        status, html = post(url, fields_of(page, {**answers, password: ("wrong-0000",)}), {})
        assert (status, "do not belong together" in html) == (422, True)
        post(url, fields_of(page, answers), {})
        assert server.pages_reached("r1") == 2

    served(work)


def test_what_a_closed_part_would_hold_is_not_taken() -> None:
    site = find_site(lambda found: len(found.pages) == 1 and any(i.spec.kind == "button" for i in found.fields), 2)
    opener = next(item for item in site.fields if item.spec.kind == "button")
    inside = next(item for item in site.fields if item.spec.when and item.spec.when.field == opener.id)
    answers = scout_answers(site)
    files = {item.name: (item.texts[0], content_of(item.texts[0])) for item in site.fields if item.spec.kind == "file"}

    def work(server: SiteServer) -> None:
        for rollout_id, state in (("closed", ()), ("open", ("on",))):
            sent = fields_of(site.pages[0], {**answers, opener.name: state})
            post(server.start_url(site.key, rollout_id), sent, files)
            (submission,) = server.submissions(rollout_id)
            assert submission.accepted, submission.errors
            assert opener.name not in submission.fields
            assert bool(submission.fields[inside.name]) == bool(state)

    served(work)


def test_an_agent_of_somebody_else_gets_the_files_of_its_task() -> None:
    tasks = make_rich_tasks("test", count=2, kinds=("passport",))
    sites = PublicSites(tasks)

    def read(address: str) -> bytes:
        with urllib.request.urlopen(sites.server.base_url + address) as answer:
            return answer.read()

    async def work() -> tuple[bytes, bytes]:
        await sites.server.start()
        try:
            return await asyncio.to_thread(read, "/tasks"), await asyncio.to_thread(read, "/files/portrait.png")
        finally:
            await sites.server.stop()

    listed, content = asyncio.run(work())
    assert b"/files/portrait.png" in listed
    assert content == content_of("portrait.png")
