"""A ref means one element, whatever it shares with others: field, label, or neither of them."""

from __future__ import annotations

import pytest

from harness.execute import Executor
from harness.execute.executors import FastExecutor, TrustedExecutor
from harness.judge.outcome import are_equal
from tests.harness.conftest import Lab


@pytest.fixture(params=[FastExecutor(), TrustedExecutor()], ids=["fast", "trusted"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return request.param


BOXES_OF_ONE_NAME = """<h1>P</h1><form><fieldset><legend>Telephone</legend><input name="tel[]" aria-label=area>
<input name="tel[]" aria-label=exchange><input name="tel[]" aria-label=line></fieldset></form>"""


@pytest.mark.browser
def test_boxes_that_share_a_name_are_filled_one_by_one(lab: Lab, executor: Executor) -> None:
    plan = 'fill p1.e1 "020"\nfill p1.e2 "7946"\nfill p1.e3 "0018"\nfill p1.e1 "0161"'
    execution = lab.plan(BOXES_OF_ONE_NAME, plan, executor)
    assert execution.values["tel[]"] == ("0161", "7946", "0018")
    assert [item.status for item in execution.actions] == ["ok"] * 4


CODE = """<h1>C</h1><form>{boxes}<input type=text name=whole aria-label=Whole></form><script>
const boxes = [...document.querySelectorAll("input:not([name])")];
boxes.forEach((box, at) => box.addEventListener("input", () => {{
  document.querySelector("[name=whole]").value = boxes.map((other) => other.value || "-").join("");
  if (box.value) boxes[at + 1]?.focus();
}}));</script>"""


@pytest.mark.browser
@pytest.mark.parametrize("attributes", ["maxlength=2", "maxlength=2 aria-label=Part"])
def test_boxes_without_a_name_are_told_by_their_place(lab: Lab, executor: Executor, attributes: str) -> None:
    body = CODE.format(boxes=f"<input {attributes}>" * 4)
    execution = lab.plan(body, 'fill p1.e3 "6"\nfill p1.e1 "8"\nfill p1.e4 "2"', executor)
    assert execution.values["whole"] == ("8-62",)


@pytest.mark.browser
@pytest.mark.parametrize("attributes", ["maxlength=1", "maxlength=1 aria-label=Digit"])
def test_boxes_of_one_character_without_a_name_are_one_control(lab: Lab, executor: Executor, attributes: str) -> None:
    body = CODE.format(boxes=f"<input {attributes}>" * 4)
    execution = lab.plan(body, 'fill p1.e1 "8062"\nfill p1.e2 "8462"\nfill p1.e1 "8462"', executor)
    assert execution.values["whole"] == ("8462",)
    assert [item.status for item in execution.actions] == ["ok"] * 3


TWO_QUESTIONS = """<h1>Q</h1><form><fieldset><legend>Smoker</legend><label><input type=radio name=""> Yes</label>
<label><input type=radio> No</label></fieldset><fieldset><legend>Driver</legend><label><input type=radio> Yes</label>
<label><input type=radio> No</label></fieldset><label>Chosen <input name=chosen></label></form><script>
const radios = [...document.querySelectorAll("[type=radio]")];
radios.forEach((radio) => radio.addEventListener("change", () => {
  document.querySelector("[name=chosen]").value = radios.flatMap((other, at) => (other.checked ? [at] : [])).join(",");
}));</script>"""


@pytest.mark.browser
def test_options_that_look_alike_are_told_by_their_place(lab: Lab, executor: Executor) -> None:
    assert lab.plan(TWO_QUESTIONS, "choose p1.e4\nchoose p1.e1", executor).values["chosen"] == ("0,3",)


ROWS = """<h1>R</h1><form><div><input name=guest aria-label=Guest><button type=button>Drop</button></div>
<div><input name=guest aria-label=Guest><button type=button>Drop</button></div>
<div><input name=guest aria-label=Guest><button type=button>Drop</button></div></form><script>
for (const button of document.querySelectorAll("button")) button.onclick = () => button.parentElement.remove();
</script>"""


@pytest.mark.browser
def test_a_ref_stays_with_its_element_when_one_before_it_goes(lab: Lab, executor: Executor) -> None:
    plan = 'fill p1.e3 "Bo"\nclick p1.e2\nfill p1.e5 "Cy"\nfill p1.e1 "Al"'
    execution = lab.plan(ROWS, plan, executor)
    assert execution.values["guest"] == ("Bo", "Cy")
    assert execution.actions[-1].note == "not found: p1.e1"


RENAMED = """<h1>N</h1><form><button type=button>Next</button><label>Seen <input name=seen></label></form><script>
const button = document.querySelector("button");
button.onclick = () => {
  document.querySelector("[name=seen]").value += button.textContent + " ";
  button.textContent = "Finish";
};
</script>"""


@pytest.mark.browser
def test_a_ref_stays_with_a_button_whose_caption_changes(lab: Lab, executor: Executor) -> None:
    assert lab.plan(RENAMED, "click p1.e1\nclick p1.e1", executor).values["seen"] == ("Next Finish ",)


def test_the_order_of_boxes_counts_and_that_of_choices_does_not() -> None:
    assert not are_equal("text", ("020", "7946"), ("7946", "020"))
    assert are_equal("checkbox", ("Hat", "Scarf"), ("Scarf", "Hat"))
