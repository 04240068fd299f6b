"""The observation that is read from the browser equals the one that follows from the site's schema."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dllm_rl.errors import HarnessError
from dllm_rl.records.tasks import Condition, ControlKind, Observation, Task
from dllm_rl.session import Session
from harness.environments import FormEnvironment
from harness.scout import ScoutCache, Seen, Survey
from harness.scout.walk import Answers, Sight, Visit, walk
from harness.sites import expected_page, make_site
from tests.harness.conftest import Lab

pytestmark = pytest.mark.browser

# Sites on which an answer on one page decides what a later page shows.
BRANCHING = ("insurance.small.L1.s0", "job.small.L8.s300001", "loan.full.L3.s2", "insurance.full.L9.s300002")


@pytest.mark.parametrize("split", ["train", "test_layout"])
def test_scout_sees_what_the_schema_says(session: Session[FormEnvironment], split: str) -> None:
    tasks = session.tasks(split)
    for task, page in zip(tasks, session.observe_many(tasks), strict=True):
        assert page == expected_page(make_site(task.site)), task.site


@pytest.mark.parametrize("key", BRANCHING)
def test_scout_sees_every_branch(session: Session[FormEnvironment], key: str) -> None:
    task = Task(id=key, split="train", site=key, instruction="", gold=())
    assert session.observe_many([task]) == [expected_page(make_site(key))]


def test_a_cached_page_is_the_scouted_one(session: Session[FormEnvironment], tmp_path) -> None:
    task = session.tasks("train")[0]
    (page,) = session.observe_many([task])
    ScoutCache(tmp_path).put(task.site, page)
    assert ScoutCache(tmp_path).get(task.site) == page
    assert ScoutCache(tmp_path).get("contact.small.L1.s99") is None


NESTED = """
<h1>Trip</h1><form method=post>
<label>Way <select name=way><option value="">Choose</option><option value=1>Train</option><option value=2>Car</option>
</select></label>
<label hidden id=seat><input type=checkbox name=seat> Seat</label>
<label hidden id=row>Row <input name=row></label><button>Send</button></form>
<script>
const way = document.querySelector('[name=way]'), seat = document.querySelector('[name=seat]');
const update = () => {
  document.getElementById('seat').hidden = way.value !== '1';
  document.getElementById('row').hidden = way.value !== '1' || !seat.checked;
};
way.addEventListener('change', update); seat.addEventListener('change', update);
</script>"""


def test_exploration_finds_what_only_two_answers_show(lab: Lab) -> None:
    lab.show(NESTED)

    async def explore() -> Observation:
        from harness.scout import scout

        async with lab.pool.tab("page") as tab:
            return await scout(tab, lambda: lab.base_url, {"way": ("Train",)})

    page = lab.run(explore())
    conditions = {control.name: control.condition for control in page.controls if control.page_number == 1}
    assert conditions == {
        "Way": None,
        "Seat": Condition(ref="p1.e1", value="Train"),
        "Row": Condition(ref="p1.e2", value="checked"),
        "Send": None,
    }


def test_exploration_leaves_the_page_as_it_was(lab: Lab) -> None:
    lab.show(NESTED)

    async def values() -> tuple[object, object]:
        async with lab.pool.tab("page") as tab:
            await tab.goto(lab.base_url)
            before = await tab.call("inventory", seconds=2)
            await tab.call("explore", seconds=2)
            return before, await tab.call("inventory", seconds=2)

    before, after = lab.run(values())
    assert before == after


ROLES = {
    "text": "textbox",
    "email": "textbox",
    "tel": "textbox",
    "textarea": "textbox",
    "number": "spinbutton",
    "radio": "radio",
    "checkbox": "checkbox",
    "select": "combobox",
    "multiselect": "listbox",
    "button": "button",
}


@pytest.mark.parametrize("layout", ["L1", "L2", "L3", "L4", "L5", "L7", "L8", "L9"])
def test_names_are_those_of_the_accessibility_tree(lab: Lab, layout: str) -> None:
    from harness.sites import SiteServer, scout_answers

    async def check() -> None:
        server = SiteServer()
        await server.start()
        key = f"survey.full.{layout}.s1"
        async with lab.pool.tab("context") as tab:
            for visit in await walk(tab, server.start_url(key, "names"), scout_answers(make_site(key)), num_pages=1):
                for seen in visit.controls:
                    if seen.kind != "date":
                        found = tab.page.get_by_role(ROLES[seen.kind], name=seen.name, exact=True)  # type: ignore[arg-type]
                        assert await found.count() >= 1, seen
        await server.stop()

    lab.run(check())


def unchosen(kind: ControlKind, field: str, options: tuple[str, ...] = ()) -> Seen:
    return Seen(
        kind=kind, name=field, group="", options=options, required=False, disabled=False, value="", field=field
    )  # fmt: skip


async def _walked(self: Survey, start_url: str, answers: Answers, num_pages: int = 2) -> tuple[Visit, ...]:
    """Two choices of one option each, one of which shows a field on the second page."""
    choices = unchosen("select", "way", ("Train",)), unchosen("select", "class", ("First",))
    shown = (unchosen("text", "row"),) if answers.get("way") else ()
    sights = [(Sight(decider=None, value="", controls=controls),) for controls in (choices, shown)]
    given = {name: values for name, values in answers.items() if values}
    return tuple(Visit(title="", sights=sight, answers=given) for sight in sights)


async def _walked_unsteadily(self: Survey, start_url: str, answers: Answers, num_pages: int = 2) -> tuple[Visit, ...]:
    """The field comes with the first walk alone, and with no answer."""
    first, second = await _walked(self, start_url, answers, num_pages)
    shown = () if answers else (unchosen("text", "row"),)
    return first, replace(second, sights=(Sight(decider=None, value="", controls=shown),))


async def _broken(self: Survey, start_url: str, answers: Answers, num_pages: int = 2) -> tuple[Visit, ...]:
    raise HarnessError("view: TypeError")


def test_a_choice_without_another_a_page_that_cannot_be_told_and_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def conditions() -> dict[str, Condition | None]:
        survey = Survey(tab=None, new_start_url=str, answers={}, files={})  # type: ignore[arg-type]
        return {control.field: control.condition for control in asyncio.run(survey.run()).page.controls}

    monkeypatch.setattr(Survey, "_walk", _walked)
    assert conditions() == {"way": None, "class": None, "row": Condition(ref="p1.e1", value="Train")}
    monkeypatch.setattr(Survey, "_walk", _walked_unsteadily)
    assert conditions() == {"way": None, "class": None, "row": None}
    monkeypatch.setattr(Survey, "_walk", _broken)
    with pytest.raises(HarnessError, match="view: TypeError"):
        conditions()
