"""Errands without a browser: every one is whole, the same each time, and different in every split."""

from __future__ import annotations

from random import Random

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.records.tasks import Task
from harness.errands import ANSWER, DIFFICULTIES, KINDS, SPLITS, Errand, fits, make_errand, make_tasks, rehearse
from harness.errands.schema import NEVER

ERRANDS = [
    make_errand(f"errand.{kind}.d{difficulty}.s{seed}")
    for kind in KINDS
    for difficulty in DIFFICULTIES
    for seed in range(20)
]


def test_there_are_at_least_a_dozen_kinds() -> None:
    assert len(KINDS) >= 12


def test_pages_of_an_errand_are_told_by_their_headings_and_links_lead_somewhere() -> None:
    for errand in ERRANDS:
        assert len({page.title for page in errand.pages}) == len(errand.pages), errand.key
        keys = {page.key for page in errand.pages}
        for page in errand.pages:
            targets = {*(link.to for link in page.links), *page.follow, *(to for _, _, to in page.branches)}
            targets |= {page.next, page.interruption} - {""}
            assert targets | (set(page.needs) - {NEVER}) <= keys, f"{errand.key} {page.key}"
            assert not page.num_waits or page.next, f"{errand.key} {page.key}"


def test_a_field_has_one_meaning_in_an_errand() -> None:
    for errand in ERRANDS:
        names = [item.name for page in errand.pages for item in page.entries]
        assert len(set(names)) == len(names), errand.key
        labels = [[item.label for item in page.entries] for page in errand.pages]
        assert all(len(set(own)) == len(own) for own in labels), errand.key


def test_what_is_wanted_must_be_changed_and_is_taken_by_the_server() -> None:
    for errand in ERRANDS:
        assert errand.gold
        defaults = errand.defaults
        assert all(item.name == ANSWER or item.wanted != defaults[item.name] for item in errand.gold), errand.key
        for page in errand.pages:
            for item in page.entries:
                assert item.wanted is None or not item.complaint((item.wanted,)), f"{errand.key} {item.name}"
                assert item.first_try is None or item.complaint((item.first_try,)), f"{errand.key} {item.name}"


def test_what_is_wanted_can_be_read_in_the_instruction_or_on_a_page() -> None:
    for errand in ERRANDS:
        shown = [errand.instruction.lower(), *_written(errand)]
        for item in errand.gold:
            if item.kind != "checkbox":
                assert all(any(value.lower() in text for text in shown) for value in item.wanted), errand.key


def _written(errand: Errand) -> list[str]:
    texts = [text for page in errand.pages for text in (page.title, *page.passages)]
    messages = [item.check.message for page in errand.pages for item in page.entries if item.check]
    tried = [item.wanted or "" for page in errand.pages for item in page.entries if item.first_try]
    return [text.lower() for text in (*texts, *messages, *tried)]


def test_difficulties_differ() -> None:
    """A harder errand has more to see or more to give."""
    for kind in KINDS:
        sizes = [
            sum(_size(make_errand(f"errand.{kind}.d{difficulty}.s{seed}")) for seed in range(20))
            for difficulty in DIFFICULTIES
        ]
        assert sizes == sorted(set(sizes)), kind


def _size(errand: Errand) -> int:
    troubles = sum(page.num_refusals + page.num_waits + bool(page.notice) for page in errand.pages)
    return len(errand.pages) + troubles + sum(len(page.entries) + len(page.passages) for page in errand.pages)


def test_no_errand_is_in_two_splits_and_a_larger_count_continues_the_list() -> None:
    tasks = {split: make_tasks(split, 60, seed=0, kinds=None, difficulties=DIFFICULTIES) for split in SPLITS}
    sites = [task.site for split in SPLITS for task in tasks[split]]
    assert len(set(sites)) == len(sites)
    assert make_tasks("train", 20, seed=0, kinds=None, difficulties=DIFFICULTIES) == tasks["train"][:20]
    other = make_tasks("train", 60, seed=1, kinds=None, difficulties=DIFFICULTIES)
    assert not {task.site for task in other} & set(sites)


@pytest.mark.parametrize("num_kinds", [2, 5, 9, 17])
@pytest.mark.parametrize("difficulties", [(1, 2), (1, 2, 3)])
def test_every_kind_is_met_at_every_difficulty(num_kinds, difficulties) -> None:
    kinds = tuple(KINDS)[:num_kinds]
    tasks = make_tasks("val", num_kinds * len(difficulties), seed=0, kinds=kinds, difficulties=difficulties)
    met = {tuple(task.site.split(".")[1:3]) for task in tasks}
    assert met == {(kind, f"d{difficulty}") for kind in kinds for difficulty in difficulties}


def test_a_rehearsal_ends_and_its_slips_are_made_good() -> None:
    num_slips = 0
    for errand in ERRANDS[::4]:
        if not fits(errand):
            continue
        task = Task(id=errand.key, split="train", site=errand.key, instruction=errand.instruction, gold=errand.gold)
        plain = rehearse(task, max_actions=8, chance=Random(0), detours=0.0)
        slipping = rehearse(task, max_actions=8, chance=Random(0), detours=0.5)
        assert not plain.slips and len(slipping.turns) >= len(plain.turns)
        num_slips += len(slipping.slips)
    assert num_slips > 80


def test_most_kinds_can_be_rehearsed() -> None:
    assert {errand.kind for errand in ERRANDS if not fits(errand)} <= {"long_list"}


@pytest.mark.parametrize("key", ["errand.wizard.d4.s1", "errand.nothing.d1.s1", "wizard"])
def test_a_key_that_is_none_is_refused(key) -> None:
    with pytest.raises(ConfigError, match="no errand key"):
        make_errand(key)
