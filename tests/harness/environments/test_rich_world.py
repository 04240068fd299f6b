"""The rich world: each task proves itself in both executors, and the basic world stays as it is, byte for byte."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import VERBS_BY_KIND, parse_plan
from dllm_rl.records.tasks import SPLITS, GoldField, Observation, Outcome, Task, render_prompt
from dllm_rl.session import Session
from harness.environments import FormEnvironment, FormSettings
from harness.environments.forms import with_files
from harness.rewards import Shaped, Success
from harness.sites import (
    Site,
    all_errors,
    expected_page,
    gold_plan,
    make_site,
    make_tasks,
    scout_answers,
    site_defaults,
)
from harness.sites.forms import forms
from harness.sites.forms.common import password_of
from harness.sites.render import render_form_page
from harness.sites.rich import make_rich_tasks, rich_forms
from harness.sites.schema import SiteField
from harness.sites.values import content_of, offered_files
from tests.harness.corruption import corrupted

OWN = tuple(kind for kind in rich_forms() if kind not in forms())
# Of 48 tasks of every split of the basic world: what is asked, what a policy reads, and every page as served. The
# policies that ship were trained on them.
BASIC_WORLD = "bc0f4b93072da9a260801a7e52bb30ef1d36ff80c5d427d7a1d84df41d37ae9e"


def page_of(task: Task) -> Observation:
    site = make_site(task.site)
    return with_files(expected_page(site), site)


def sample(count: int = 42, **settings) -> list[Task]:
    return [task for split in SPLITS for task in make_rich_tasks(split, count=count, dials=(0, 1, 2), **settings)]


def test_the_basic_world_is_untouched() -> None:
    digest = hashlib.sha256()
    for split in SPLITS:
        for task in make_tasks(split, count=48, dials=(0, 1, 2)):
            site = make_site(task.site)
            digest.update(render_prompt(task, expected_page(site)).encode())
            digest.update(gold_plan(task, expected_page(site)).encode())
            for number in range(1, len(site.pages) + 1):
                for answers in (site_defaults(site), scout_answers(site)):
                    digest.update(render_form_page(site, number, answers, ("wrong",), "/here").encode())
    assert digest.hexdigest() == BASIC_WORLD


def test_there_are_enough_kinds_in_enough_domains_with_every_richer_control() -> None:
    assert len(OWN) >= 12
    assert len(rich_forms()) >= 25
    assert len({form.domain for form in rich_forms().values()}) >= 8
    sites = [make_site(task.site) for task in sample()]
    fields = [field for site in sites for field in site.fields]
    assert {"combobox", "picker", "slider", "password"} <= {field.widget for field in fields}
    assert {"button", "file", "date", "multiselect"} <= {field.spec.kind for field in fields}
    assert {name for site in sites for name in site.behaviour.obstacles} == {"cookies", "notice"}
    assert {site.behaviour.look for site in sites} == {"paper", "civic", "soft", "bold", "dusk"}
    assert any(site.behaviour.num_refusals for site in sites)
    assert any(site.behaviour.seconds for site in sites)
    assert any(page.is_review for site in sites for page in site.pages)
    assert min(Counter(site.behaviour.difficulty for site in sites).values()) > 50


def holds(site: Site, opener: SiteField, wanted: dict) -> bool:
    """Whether a field that this button opens, at once or through another button, is wanted."""
    inside = [item for item in site.fields if item.spec.when and item.spec.when.field == opener.id]
    return any(item.name in wanted or holds(site, item, wanted) for item in inside)


def test_gold_is_accepted_by_the_server_and_its_plan_stands_on_the_page() -> None:
    for task in sample():
        site, page = make_site(task.site), page_of(task)
        wanted = {item.name: item.wanted for item in task.gold}
        defaults = site_defaults(site)
        assert all(set(item.wanted) != set(defaults[item.name]) for item in task.gold)
        shown = {name for name in wanted if name in {control.field for control in page.controls}}
        assert shown == set(wanted)
        opened = {
            item.name: ("on",) for item in site.fields if item.spec.kind == "button" and holds(site, item, wanted)
        }
        assert all_errors(site, {**defaults, **wanted, **opened}) == ()
        plan = parse_plan(gold_plan(task, page))
        assert plan.is_parsed
        for action in plan.actions:
            control = page.control(action.ref)
            assert control is not None
            assert action.verb in VERBS_BY_KIND[control.kind]


def test_a_larger_count_continues_the_list_and_splits_share_no_site() -> None:
    assert make_rich_tasks("train", count=40)[:20] == make_rich_tasks("train", count=20)
    sites = {split: {task.site for task in make_rich_tasks(split, count=42)} for split in SPLITS}
    assert len(set.union(*sites.values())) == sum(map(len, sites.values()))


@pytest.mark.parametrize("dials", [(0,), (0, 1), (0, 1, 2)])
def test_five_kinds_are_met_at_every_difficulty_with_every_dial(dials) -> None:
    kinds = tuple(rich_forms())[:5]
    tasks = make_rich_tasks("train", count=15 * len(dials), kinds=kinds, dials=dials)
    met = {(*task.site.split(".")[1:3], task.dial) for task in tasks}
    assert met == {(kind, f"d{difficulty}", dial) for kind in kinds for difficulty in (1, 2, 3) for dial in dials}


def test_files_are_what_their_names_say_and_always_the_same() -> None:
    assert content_of("a.png").startswith(b"\x89PNG\r\n\x1a\n")
    assert content_of("a.pdf").startswith(b"%PDF-1.4")
    assert content_of("a.txt") == content_of("a.txt") != content_of("b.txt")
    with_file = next(task for task in sample() if any(item.kind == "file" for item in task.gold))
    names = next(item.wanted for item in with_file.gold if item.kind == "file")
    assert set(names) <= set(offered_files(make_site(with_file.site)))
    assert any(control.kind == "file" and set(names) <= set(control.options) for control in page_of(with_file).controls)


def test_every_account_has_one_password() -> None:
    assert password_of("Anna@mail.com") == password_of("anna@mail.com") != password_of("ben@mail.com")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"kinds": ("pasport",)}, "Did you mean 'passport'"), ({"difficulties": (4,)}, "difficulty 4")],
)
def test_what_the_world_does_not_have_is_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_rich_tasks("train", count=1, **settings)
    with pytest.raises(ConfigError, match="it should be 'basic' or 'rich'"):
        registry.build("environment", "forms", {"world": "ritch"})


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session[FormEnvironment]]:
    settings = FormSettings(
        world="rich", kinds=OWN, counts={"train": len(OWN), "test_layout": 2}, cache_dir=tmp_path_factory.mktemp("rich")
    )
    with Session(FormEnvironment(settings)) as opened:
        yield opened


def gold_of(session: Session[FormEnvironment], split: str) -> list[tuple[Task, str]]:
    return [(task, session.gold_plan(task)) for task in session.tasks(split)]


def with_one_wrong(task: Task, page: Observation, at: int) -> str | None:
    """The gold plan with another value in one field; None where the field has no other."""
    gold = task.gold[at % len(task.gold)]
    controls = [control for control in page.controls if control.field == gold.name]
    options = [text for control in controls for text in control.options]
    if controls[0].kind in ("radio", "checkbox"):
        options = [control.name for control in controls if control.group]
    others = [text for text in options if text not in gold.wanted]
    wrong = {
        "number": (str(int(gold.wanted[0]) + 1) if gold.wanted and gold.wanted[0].isdigit() else "7",),
        "date": ("2026-02-03" if gold.wanted != ("2026-02-03",) else "2026-02-04",),
    }
    wanted = (others[0],) if others else wrong.get(gold.kind, (f"{gold.wanted[0]}x",) if gold.wanted else ("on",))
    if gold.kind == "checkbox" and not options:
        wanted = () if gold.wanted else ("on",)
    changed: GoldField = replace(gold, wanted=wanted)
    return gold_plan(replace(task, gold=tuple(changed if item is gold else item for item in task.gold)), page)


@pytest.mark.slow
@pytest.mark.browser
def test_the_scout_sees_what_the_site_is_made_of(rich: Session[FormEnvironment]) -> None:
    tasks = rich.tasks("train") + rich.tasks("test_layout")
    for task, page in zip(tasks, rich.observe_many(tasks), strict=True):
        assert page == page_of(task), task.site


@pytest.mark.browser
@pytest.mark.parametrize(("executor", "isolation"), [("fast", "page"), ("trusted", "context")])
def test_gold_is_one_in_both_executors(rich: Session[FormEnvironment], executor, isolation) -> None:
    pairs = gold_of(rich, "train") + gold_of(rich, "test_layout")
    outcomes = rich.run_many(pairs, executor=executor, isolation=isolation)
    assert [(item.task_id, item.fault_reason, item.fields) for item in outcomes if Shaped()(item) != 1.0] == []
    assert all(Success()(item) == 1.0 and item.fault == "none" for item in outcomes)


@pytest.mark.browser
def test_empty_is_nought_and_one_wrong_value_never_succeeds(rich: Session[FormEnvironment]) -> None:
    tasks = rich.tasks("train")
    pages = rich.observe_many(tasks)
    wrong = [
        (task, with_one_wrong(task, page, at) or "") for at, (task, page) in enumerate(zip(tasks, pages, strict=True))
    ]
    assert [item.task_id for item in rich.run_many(wrong) if item.is_success] == []
    empty: list[Outcome] = rich.run_many([(task, "") for task in tasks[:4]])
    assert [Shaped()(item) for item in empty] == [0.0] * 4


def task_where(is_wanted: Callable[[Site], object]) -> Task:
    return next(task for task in sample() if is_wanted(make_site(task.site)))


@pytest.mark.browser
def test_what_covers_the_page_must_be_closed(rich: Session[FormEnvironment]) -> None:
    task = task_where(lambda site: site.behaviour.obstacles and not site.behaviour.num_refusals)
    plan = rich.gold_plan(task)
    assert plan.startswith("click p1.e1\n")
    (covered,) = rich.run_many([(task, plan.split("\n", 1)[1])])
    assert not covered.is_submitted
    assert "is covered by" in covered.fault_reason


@pytest.mark.browser
def test_a_busy_site_is_the_tasks_and_takes_the_form_the_second_time(rich: Session[FormEnvironment]) -> None:
    task = task_where(lambda site: site.behaviour.num_refusals)
    plan = rich.gold_plan(task)
    assert "busy at times" in task.instruction
    once, twice = rich.run_many([(task, plan.rsplit("\n", 1)[0]), (task, plan)])
    assert (once.is_submitted, once.is_valid, once.num_attempts) == (False, True, 1)
    assert any("busy: The service is busy" in action.note for action in once.actions)
    assert Shaped()(twice) == 1.0
    assert twice.num_submissions == 1


def same(outcome: Outcome) -> tuple:
    actions = tuple((item.line, item.status, item.note) for item in outcome.actions)
    return (outcome.is_submitted, outcome.is_clean, outcome.fields, outcome.fault, outcome.pages_reached, actions)


def disagreements(session: Session[FormEnvironment], split: str, num_each: int, seed: int) -> list[str]:
    """Corrupted plans of which the executors make something different."""
    rng, pairs = random.Random(seed), []
    for task, plan in gold_of(session, split):
        (page,) = session.observe_many([task])
        pairs += [(task, corrupted(plan, page, rng)) for _ in range(num_each)]
    fast, trusted = (session.run_many(pairs, executor=name) for name in ("fast", "trusted"))
    return [
        f"{task.site}\n{plan}\n{same(one)}\n{same(other)}"
        for (task, plan), one, other in zip(pairs, fast, trusted, strict=True)
        if same(one) != same(other)
    ]


@pytest.mark.browser
def test_both_executors_make_the_same_of_corrupted_plans(rich: Session[FormEnvironment]) -> None:
    assert disagreements(rich, "train", 1, seed=5) == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_kind_at_every_difficulty_proves_itself(tmp_path) -> None:
    counts = dict.fromkeys(SPLITS, 3 * len(rich_forms()))
    with Session(
        FormEnvironment(FormSettings(world="rich", counts=counts, cache_dir=tmp_path, dials=(0, 1, 2)))
    ) as session:
        for split in SPLITS:
            tasks = session.tasks(split)
            pages = session.observe_many(tasks)
            assert [task.site for task, page in zip(tasks, pages, strict=True) if page != page_of(task)] == []
            pairs = gold_of(session, split)
            for executor in ("fast", "trusted"):
                found = session.run_many(pairs, executor=executor)
                assert [item for item in found if Shaped()(item) != 1.0] == []
            for at in range(3):
                wrong = [(task, with_one_wrong(task, page, at) or "") for task, page in zip(tasks, pages, strict=True)]
                assert [item.task_id for item in session.run_many(wrong) if item.is_success] == []
            assert [item for item in session.run_many([(task, "") for task in tasks]) if Shaped()(item)] == []
            assert disagreements(session, split, 3, seed=1) == []
