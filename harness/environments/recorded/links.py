"""Pages of a site that have a form, found by following links from its first page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote, urljoin, urlsplit

from dllm_rl.errors import ConfigError
from harness.recorder import Upstream, ask

MAX_PAGES = 300


def linked_forms(upstream: Upstream) -> list[str]:
    """Paths of pages with a form, in the order in which they are found.

    Raises ConfigError where the first page is an error.
    """
    paths, found = ["/"], []
    own = f"http://{upstream.host}:{upstream.port}"
    for path in paths:
        answer = ask(upstream, "GET", path, body=b"", headers={"host": own.removeprefix("http://")}, own=own)
        if path == "/" and answer.status >= 400:
            raise ConfigError(f"the first page answered {answer.status}; expected a page with forms or links to them.")
        page = _Links(path)
        if answer.status in (301, 302, 303, 307, 308):
            page.follow(urljoin(own + path, answer.header("location")).removeprefix(own))
        elif answer.status == 200 and "html" in answer.header("content-type"):
            page.feed(answer.body.decode("utf-8", errors="replace"))
        if page.has_form:
            found.append(path)
        paths += [link for link in dict.fromkeys(page.links) if link not in paths][: MAX_PAGES - len(paths)]
    return found


class _Links(HTMLParser):
    """Links of a page to the same host, and whether it has a form to be sent."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.has_form = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        if tag == "form":
            self.has_form = True
        target = dict(attrs).get("href") if tag == "a" else None
        if target:
            self.follow(target)

    def follow(self, target: str) -> None:
        """Take down where a link leads, if that is a page of the same host."""
        try:
            parts = urlsplit(urljoin(f"http://here{self.path}", target))
        except ValueError:
            return
        if parts.netloc == "here" and not re.search(r"\.(css|js|png|jpe?g|svg|pdf|zip|json)$", parts.path):
            self.links.append(quote(parts.path, safe="/%:@!$&'()*+,;=~-._"))
