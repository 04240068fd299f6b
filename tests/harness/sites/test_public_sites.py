"""Other people's agents: a task begun over HTTP, filled in by any client, judged by what the server received."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest

from dllm_rl.errors import ConfigError
from harness.sites import make_site, make_tasks
from harness.sites.public_sites import PublicSites


def ask(url: str, body: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body)) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_an_agent_with_any_client_is_judged_by_what_was_received() -> None:
    sites = PublicSites(make_tasks("test", count=3, kinds=("newsletter",)))

    def play(base: str) -> None:
        _, tasks = ask(f"{base}/tasks")
        assert len(tasks) == 3
        assert set(tasks[0]) == {"id", "instruction", "dial"}, "the gold stays with the server"
        _, begun = ask(f"{base}/episodes", json.dumps({"task": tasks[0]["id"]}).encode())
        verdict = f"{base}/episodes/{begun['episode']}"
        assert {name: ask(verdict)[1]["rewards"][name] for name in ("outcome", "shaped", "tree")} == {
            "outcome": 0.0,
            "shaped": 0.0,
            "tree": 0.0,
        }
        task = sites.tasks[tasks[0]["id"]]
        values = {item.name: set(item.default) for item in make_site(task.site).fields}
        values |= {item.name: set(item.wanted) for item in task.gold}
        sent = [
            (item.name, next((option.value for option in item.options if option.text == text), text))
            for item in make_site(task.site).fields
            for text in values[item.name]
        ]
        assert {name for item in ask(verdict)[1]["fields"] for name in item} == {"name", "received"}
        urllib.request.urlopen(begun["start_url"], data=urllib.parse.urlencode(sent).encode()).read()
        judged = ask(verdict)[1]
        assert (judged["is_success"], judged["rewards"]["outcome"]) == (True, 1.0)
        assert all(item["wanted"] and item["is_correct"] for item in judged["fields"])
        urllib.request.urlopen(begun["start_url"], data=urllib.parse.urlencode(sent).encode()).read()
        assert ask(verdict)[1]["rewards"] == judged["rewards"], "nothing after the accepted form counts"
        deep, long = b"[" * 9_000, b'{"task": ' + b"1" * 9_000 + b"}"
        for body in (b"[1]", deep, long, b"x" * 1_000_000):
            assert ask(f"{base}/episodes", body)[0] == 422
        assert ask(f"{base}/episodes/a99")[0] == 404

    async def work() -> None:
        await sites.server.start()
        await asyncio.to_thread(play, sites.server.base_url)
        await sites.server.stop()

    asyncio.run(work())


def test_a_port_that_is_taken_is_refused_with_a_reason() -> None:
    async def twice() -> None:
        first = PublicSites(())
        await first.server.start()
        try:
            await PublicSites((), port=int(first.server.base_url.rsplit(":", 1)[1])).server.start()
        finally:
            await first.server.stop()

    with pytest.raises(ConfigError, match="cannot be opened"):
        asyncio.run(twice())
