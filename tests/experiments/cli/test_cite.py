"""Every paper that our methods name has an entry with title and author; nothing is invented for those of others."""

from __future__ import annotations

import pytest

from dllm_rl import registry
from experiments.cli.listing import entry, papers_of


@pytest.mark.parametrize(
    "name", [name for name, cls in registry.items("objective") if cls.__module__.startswith("obj") and cls.paper]
)
def test_each_of_our_objectives_is_cited_in_full(name: str) -> None:
    (paper,) = papers_of(registry.get("objective", name))
    text = entry(paper, [f"objective {name}"])
    assert text.startswith(f"% objective {name}\n@misc{{arxiv:{paper},\n  title = {{{{")
    assert "author = {" in text and f"eprint = {{{paper}}}" in text and f"year = {{20{paper[:2]}}}" in text
    assert text.count("{") == text.count("}")


def test_an_unknown_paper_has_its_number_and_no_title() -> None:
    text = entry("2999.00001", ["objective theirs"])
    assert "title" not in text and "author" not in text
    assert "https://arxiv.org/abs/2999.00001" in text
