"""The evaluation of `diagnose`: its corpus is fixed, and on its first half the promise on false alarms is kept."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from benchmarks.diagnosis import confusion, mistakes, page, score, summary
from benchmarks.diagnosis_corpus import NUM_HEALTHY, NUM_OF_A_KIND, corpus


def test_the_corpus_is_the_same_at_every_call_and_its_halves_are_not():
    first, again, second = (list(islice(corpus(half), 12)) for half in ("first", "first", "second"))
    assert first == again
    assert first[0].rows != second[0].rows


@pytest.mark.slow
def test_few_false_alarms_and_most_runs_named_rightly():
    cases = list(corpus("first"))
    assert Counter(case.label for case in cases) == {case.label: NUM_OF_A_KIND for case in cases} | {
        "healthy": NUM_HEALTHY
    }
    scored = score(cases)
    false_alarms = [item for item in scored if item.case.label == "healthy" and item.diagnosis.kind != "healthy"]
    assert len(false_alarms) <= 0.02 * NUM_HEALTHY
    assert len(mistakes(scored)) <= 0.05 * len(cases)


def test_the_page_tells_both_halves():
    scored = score(islice(corpus("first"), 20))
    text = page({"first": scored, "second": scored}, {})
    assert confusion(scored) in text
    assert summary(scored) in text
    assert "Second half: only ever scored" in text
