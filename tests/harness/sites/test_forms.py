"""What the built-in world must hold: kinds, domains, controls, wizards, branches, and wordings that stay apart."""

from __future__ import annotations

from itertools import combinations

import pytest

from dllm_rl.errors import ConfigError
from harness.sites import all_errors, make_site, scout_answers, site_defaults, site_keys, vocabulary
from harness.sites.forms import form, forms
from harness.sites.oracle import branches, expected_page
from harness.sites.schema import FormSpec, Wording

KINDS = tuple(forms())


def test_there_are_enough_kinds_domains_wizards_and_branches() -> None:
    specs = forms().values()
    assert len(KINDS) >= 12
    assert len({spec.domain for spec in specs}) >= 5
    assert sum(len(spec.pages) > 1 for spec in specs) >= 2
    assert any(spec.has_review for spec in specs)
    assert sum(any(item.when for item in spec.fields) for spec in specs) >= 2
    assert any(_depends_on_an_earlier_page(spec) for spec in specs)
    assert any(spec.rules for spec in specs)


def _depends_on_an_earlier_page(spec: FormSpec) -> bool:
    page_of = {item.id: item.page for item in spec.fields}
    return any(item.when and page_of[item.when.field] < item.page for item in spec.fields)


def test_small_sites_hold_every_kind_of_control() -> None:
    sites = [make_site(key) for kind in KINDS for key in site_keys("train", kind)]
    kinds = {item.spec.kind for site in sites for item in site.fields}
    assert kinds == {"text", "email", "tel", "number", "date", "textarea", "select", "multiselect", "radio", "checkbox"}
    assert any(item.spec.kind == "checkbox" and item.options for site in sites for item in site.fields)
    assert any(item.default for site in sites for item in site.fields if item.spec.kind == "checkbox")
    assert max(len(site.fields) for site in sites) <= 8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_held_out", [False, True])
def test_two_fields_of_a_form_never_share_a_label(kind: str, is_held_out: bool) -> None:
    pools = [{label.lower() for label in item.labels.pool(is_held_out)} for item in form(kind).fields]
    assert all(not first & second for first, second in combinations(pools, 2))


def test_no_held_out_wording_is_one_of_training() -> None:
    buttons = [value for value in vars(vocabulary).values() if isinstance(value, Wording)]
    titles = [page.titles for spec in forms().values() for page in spec.pages]
    labels = [item.labels for spec in forms().values() for item in spec.fields]
    for family in (buttons, titles + labels):
        train = {text.lower() for words in family for text in words.train}
        assert not train & {text.lower() for words in family for text in words.held_out}


@pytest.mark.parametrize("size", ["small", "full"])
def test_refs_are_unique_in_reading_order_and_branches_point_back(size: str) -> None:
    for kind in KINDS:
        for key in site_keys("train", kind, size=size) + site_keys("test_layout", kind, size=size):  # type: ignore[arg-type]
            site = make_site(key)
            page = expected_page(site)
            for number in range(1, len(site.pages) + 1):
                refs = [control.ref for control in page.controls if control.page_number == number]
                assert refs == [f"p{number}.e{at}" for at in range(1, len(refs) + 1)]
            seen: set[str] = set()
            for control in page.controls:
                assert control.condition is None or control.condition.ref in seen
                seen.add(control.ref)
            assert len({(control.name, control.group) for control in page.controls if control.field}) == len(
                [control for control in page.controls if control.field]
            )


@pytest.mark.parametrize("kind", KINDS)
def test_an_untouched_site_is_refused_and_the_scout_gets_past_every_branch(kind: str) -> None:
    keys = site_keys("train", kind) + site_keys("test", kind, size="full") + site_keys("test_layout", kind)
    for site in map(make_site, keys):
        assert all_errors(site, site_defaults(site))
        answers = scout_answers(site)
        assert set(answers) == {item.name for item in site.fields}
        for name, answer in branches(site):
            assert all_errors(site, {**answers, name: answer}) == ()


def test_a_site_differs_by_seed_in_words_names_and_order() -> None:
    sites = [make_site(key) for key in site_keys("train", "contact")]
    assert len({site.pages[0].title for site in sites}) > 1
    assert len({item.name for site in sites for item in site.fields if item.id == "email"}) > 2
    assert len({tuple(item.id for item in site.fields) for site in sites}) > 3
    assert len({site.layout for site in sites}) == 6


@pytest.mark.parametrize("key", ["contact", "contact.small.L99.s1", "contact.huge.L1.s1", "contact.small.L1.s-1"])
def test_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="no site key"):
        make_site(key)


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'contact'"):
        make_site("contakt.small.L1.s1")
