"""The newer design: what stands between right fields and an accepted form, and that each kind of it proves itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dllm_rl.errors import ConfigError
from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import SPLITS, Observation, Task
from dllm_rl.session import Session
from harness.environments import FormEnvironment, FormSettings
from harness.rewards import Shaped, Success
from harness.sites import (
    OBSTACLES,
    expected_page,
    gold_plan,
    make_site,
    make_tasks,
    older_key,
    unfinished_plan,
)
from harness.sites.schema import DRAFT

MAX_LINES = 8


def page_of(task: Task) -> Observation:
    return expected_page(make_site(task.site))


def tasks_of(obstacle: str, split: str = "val", count: int = 32) -> tuple[Task, ...]:
    return make_tasks(split, count=count, obstacles=(obstacle,))  # type: ignore[arg-type]


def test_a_newer_site_is_the_older_one_with_one_obstacle() -> None:
    for obstacle in OBSTACLES:
        for task in tasks_of(obstacle):
            site, older = make_site(task.site), make_site(older_key(task.site))
            assert (site.obstacle, older.obstacle) == (obstacle, None)
            assert task.site == f"{older.key}.{obstacle}"
            assert site.fields == older.fields
            page, before = expected_page(site), expected_page(older)
            refs = {item.field: item.ref for item in page.controls}
            assert all(refs[item.field] == item.ref for item in before.controls if item.field and not item.group)


def test_every_site_has_one_of_the_allowed_obstacles_by_its_seed() -> None:
    allowed = ("consent", "notice")
    tasks = make_tasks("train", count=160, obstacles=allowed)
    found = {task.site: make_site(task.site).obstacle for task in tasks}
    assert set(found.values()) == set(allowed)
    assert len({older_key(key) for key in found}) == len(found)


def test_the_second_button_stands_where_the_older_design_had_the_one_and_one_ref_decides() -> None:
    for task in tasks_of("second_button"):
        page, before = page_of(task), expected_page(make_site(older_key(task.site)))
        assert page.controls[-2].field == DRAFT
        assert page.controls[-2].ref == before.controls[-1].ref
        finished, unfinished = (parse_plan(plan(task, page)).actions for plan in (gold_plan, unfinished_plan))
        assert finished[:-1] == unfinished[:-1]
        assert finished[-1].verb == unfinished[-1].verb == "submit"
        assert (finished[-1].ref, unfinished[-1].ref) == (page.controls[-1].ref, page.controls[-2].ref)


def test_plans_stay_within_the_bounds_of_small_sites() -> None:
    for obstacle in OBSTACLES:
        for task in tasks_of(obstacle, "train", 96):
            assert len(gold_plan(task, page_of(task)).splitlines()) <= MAX_LINES


def test_tasks_with_a_second_button_ask_for_what_those_of_the_older_design_do() -> None:
    for newer, older in zip(tasks_of("second_button"), make_tasks("val", count=32), strict=True):
        assert (newer.instruction, newer.gold, older_key(newer.site)) == (older.instruction, older.gold, older.site)
        assert newer.id != older.id


def test_words_of_the_newer_design_are_kept_out_of_training_like_all_others() -> None:
    def words(split: str) -> set[str]:
        sites = [make_site(task.site) for obstacle in OBSTACLES for task in tasks_of(obstacle, split, 96)]
        return {item.caption for site in sites for item in site.extras} | {
            text
            for site in sites
            if site.obstacle == "review"
            for text in (site.pages[-1].title, site.pages[-1].button)
        }

    assert not words("train") & words("test_layout")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"obstacles": ("consent",)}, "the design 'older' has no obstacles"),
        ({"design": "newer", "obstacles": ("consnet",)}, "Did you mean 'consent'"),
        ({"design": "newer", "obstacles": ()}, "obstacles is empty"),
        ({"design": "nwer"}, "Did you mean 'newer'"),
        ({"design": "newer", "world": "rich"}, "the world 'rich' has one design"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says) -> None:
    with pytest.raises(ConfigError, match=says):
        FormSettings(**settings)


@pytest.mark.parametrize("key", ["contact.small.L1.s3.nothing", "rich.visa.d1.L2.s1.consent"])
def test_a_key_with_another_ending_is_refused(key) -> None:
    with pytest.raises(ConfigError, match="no site key"):
        make_site(key)


@pytest.fixture(scope="module")
def newer(tmp_path_factory) -> Iterator[Session[FormEnvironment]]:
    with Session(FormEnvironment(FormSettings(design="newer", cache_dir=tmp_path_factory.mktemp("newer")))) as opened:
        yield opened


def sample() -> list[Task]:
    """Tasks of every obstacle, one in words of training and one in held-out ones, one with one page and one with more.

    Which is which changes from obstacle to obstacle; the soak looks at all of them.
    """
    found = []
    for number, obstacle in enumerate(OBSTACLES):
        for split, is_long in (("val", number % 2 == 0), ("test_layout", number % 2 == 1)):
            tasks = tasks_of(obstacle, split, 16)
            found.append(next(task for task in tasks if (len(make_site(older_key(task.site)).pages) > 1) == is_long))
    return found


@pytest.mark.slow
@pytest.mark.browser
def test_the_scout_sees_what_a_newer_site_is_made_of(newer) -> None:
    tasks = sample()
    for task, page in zip(tasks, newer.observe_many(tasks), strict=True):
        assert page == page_of(task), task.site


@pytest.mark.browser
@pytest.mark.parametrize(("executor", "isolation"), [("fast", "arena"), ("trusted", "context")])
def test_gold_is_one_and_yesterdays_plan_is_a_near_miss(newer, executor, isolation) -> None:
    tasks = sample()
    plans = [(task, plan(task, page_of(task))) for plan in (gold_plan, unfinished_plan) for task in tasks]
    outcomes = newer.run_many(plans, executor=executor, isolation=isolation)
    finished, unfinished = outcomes[: len(tasks)], outcomes[len(tasks) :]
    assert [item.task_id for item in finished if Shaped()(item) != 1.0 or not item.is_success] == []
    assert [(item.task_id, item.fields) for item in unfinished if not item.is_near_miss or not item.is_valid] == []
    assert [item for item in unfinished if Success()(item)] == []


@pytest.mark.browser
def test_the_empty_plan_is_nought_and_a_draft_can_still_be_sent(newer) -> None:
    task = tasks_of("second_button")[0]
    empty, both = newer.run_many(
        [
            (task, ""),
            (task, unfinished_plan(task, page_of(task)) + "\n" + gold_plan(task, page_of(task)).splitlines()[-1]),
        ]
    )
    assert Shaped()(empty) == 0.0
    assert both.is_success
    assert both.num_submissions == 1


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_obstacle_proves_itself_on_every_kind(tmp_path) -> None:
    with Session(FormEnvironment(FormSettings(design="newer", cache_dir=tmp_path))) as session:
        for obstacle in OBSTACLES:
            for split in SPLITS:
                tasks = tasks_of(obstacle, split, 48)
                pages = session.observe_many(tasks)
                assert [task.site for task, page in zip(tasks, pages, strict=True) if page != page_of(task)] == []
                finished = session.run_many([(task, gold_plan(task, page_of(task))) for task in tasks])
                assert [item for item in finished if Shaped()(item) != 1.0] == []
                unfinished = session.run_many([(task, unfinished_plan(task, page_of(task))) for task in tasks])
                assert [item for item in unfinished if not item.is_near_miss] == []
