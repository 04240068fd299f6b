"""Tasks: the same from the same seed, apart over splits, and each one solvable by its own gold plan."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import VERBS_BY_KIND, parse_plan
from dllm_rl.records.tasks import SPLITS, Task
from harness.sites import (
    all_errors,
    expected_page,
    gold_plan,
    make_site,
    make_tasks,
    site_defaults,
    site_keys,
)
from harness.sites.forms import forms
from harness.sites.generate import BOUNDS
from harness.sites.instructions import number_in_words

COUNT = 6 * len(forms())


def _sample(size: str = "small") -> list[Task]:
    return [
        task
        for split in SPLITS
        for task in make_tasks(split, count=COUNT, size=size, dials=(0, 1, 2))  # type: ignore[arg-type]
    ]


def test_the_same_seed_gives_the_same_tasks_in_another_process() -> None:
    program = "from harness.sites import make_tasks; print(make_tasks('test', count=64, seed=3))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == repr(make_tasks("test", count=64, seed=3))


def test_a_larger_count_continues_the_list_and_another_seed_is_another_list() -> None:
    few, many = make_tasks("train", count=20), make_tasks("train", count=40)
    assert many[:20] == few
    other = make_tasks("train", count=40, seed=1)
    assert other != many
    assert not {task.id for task in many} & {task.id for task in other}
    assert len({task.id for task in many}) == len(many)


def test_tasks_are_balanced_over_kinds_and_dials() -> None:
    tasks = make_tasks("train", count=4 * len(forms()))
    assert set(Counter(make_site(task.site).form.kind for task in tasks).values()) == {4}
    assert Counter(task.dial for task in tasks) == {0: 2 * len(forms()), 1: 2 * len(forms())}


def test_splits_share_no_site_neither_by_key_nor_by_content() -> None:
    keys: dict[str, set[str]] = {split: set() for split in SPLITS}
    contents: dict[str, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        for kind in forms():
            for key in site_keys(split, kind):
                keys[split].add(key)
                site = make_site(key)
                contents[split].add(repr({**asdict(site), "key": "", "seed": 0}))
    for at, split in enumerate(SPLITS):
        for other in SPLITS[at + 1 :]:
            assert not keys[split] & keys[other]
            assert not contents[split] & contents[other]
    layouts = {split: {key.split(".")[2] for key in keys[split]} for split in SPLITS}
    assert layouts["train"] == layouts["val"] == layouts["test"]
    assert not layouts["train"] & layouts["test_layout"]


@pytest.mark.parametrize("size", ["small", "full"])
def test_gold_is_accepted_and_never_a_default(size: str) -> None:
    for task in _sample(size):
        site = make_site(task.site)
        defaults = site_defaults(site)
        assert all(set(item.wanted) != set(defaults[item.name]) for item in task.gold)
        assert all_errors(site, {**defaults, **{item.name: item.wanted for item in task.gold}}) == ()
        assert BOUNDS[size].min_gold <= len(task.gold) <= BOUNDS[size].max_gold


@pytest.mark.parametrize("size", ["small", "full"])
def test_the_gold_plan_parses_and_stands_on_the_page(size: str) -> None:
    for task in _sample(size):
        page = expected_page(make_site(task.site))
        plan = parse_plan(gold_plan(task, page))
        assert plan.is_parsed
        assert len(plan.actions) <= BOUNDS[size].max_lines
        for action in plan.actions:
            control = page.control(action.ref)
            assert control is not None
            assert action.verb in VERBS_BY_KIND[control.kind]
        verbs = [action.verb for action in plan.actions]
        assert verbs.count("submit") == 1
        assert verbs[-1] == "submit"
        assert verbs.count("next") == len(page.titles) - 1


def test_small_tasks_are_short_and_ascii() -> None:
    for task in _sample():
        text = task.instruction + repr(expected_page(make_site(task.site)))
        assert text.isascii()
        assert all(len(value) <= 24 for item in task.gold for value in item.wanted)
        assert 3 <= len(task.gold) <= 6


def test_dial_0_and_1_write_the_values_as_the_server_wants_them() -> None:
    for task in _sample():
        for item in task.gold:
            if task.dial < 2 and item.wanted != ("on",):
                assert all(value in task.instruction for value in item.wanted)
            if task.dial == 0:
                assert f"{item.label}: " in task.instruction


def test_dial_2_writes_no_iso_date() -> None:
    tasks = [task for task in _sample() if task.dial == 2]
    dates = [value for task in tasks for item in task.gold if item.kind == "date" for value in item.wanted]
    assert dates
    assert not any(value in task.instruction for task in tasks for value in dates)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "zero"), (14, "fourteen"), (40, "forty"), (1250, "one thousand two hundred fifty"), (28500, None)],
)
def test_numbers_in_words(number: int, text: str | None) -> None:
    assert number_in_words(number) == (text or "twenty eight thousand five hundred")


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'train'"):
        make_tasks("tarin", count=1)
