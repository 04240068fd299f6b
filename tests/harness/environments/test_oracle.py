"""Every task proves itself in the browser, and nothing is earned without reading it."""

from __future__ import annotations

import pytest

from dllm_rl.records.plan import parse_plan
from dllm_rl.records.tasks import Observation, Outcome, Task
from dllm_rl.session import Session
from harness.environments import FormEnvironment
from harness.rewards import Shaped, Success
from tests.harness.oracle import prove

pytestmark = pytest.mark.browser


def gold_of(session: Session[FormEnvironment], split: str) -> list[tuple[Task, str]]:
    return [(task, session.gold_plan(task)) for task in session.tasks(split)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "isolation", "executor"),
    [
        ("train", "page", "fast"),
        ("test_layout", "context", "fast"),
        ("train", "page", "trusted"),
        ("test_layout", "context", "trusted"),
    ],
)
def test_gold_is_one_and_empty_is_nought(session, split: str, isolation, executor) -> None:
    pairs = gold_of(session, split)
    for outcome in session.run_many(pairs, isolation=isolation, executor=executor):
        assert (Shaped()(outcome), Success()(outcome)) == (1.0, 1.0), outcome
        assert all(item.status == "ok" for item in outcome.actions)
        assert outcome.pages_reached == outcome.num_pages
    empty = [(task, "") for task, _ in pairs[:6]]
    for outcome in session.run_many(empty, isolation=isolation, executor=executor):
        assert (Shaped()(outcome), Success()(outcome)) == (0.0, 0.0)


def submit_only(page: Observation) -> str:
    return "\n".join(f"submit {control.ref}" for control in page.controls if control.kind == "button")


def first_options(page: Observation) -> str:
    """Everything with something, without reading the task."""
    lines = []
    for control in page.controls:
        if control.kind in ("select", "multiselect"):
            lines.append(f'select {control.ref} "{control.options[0]}"')
        elif control.kind in ("radio", "checkbox"):
            lines.append(f"{'choose' if control.kind == 'radio' else 'check'} {control.ref}")
        elif control.kind == "button":
            lines.append(f"submit {control.ref}")
        else:
            value = {"number": "1", "date": "2026-06-01", "email": "a@b.org"}.get(control.kind, "Anna")
            lines.append(f'fill {control.ref} "{value}"')
    return "\n".join(lines)


def values(outcomes: list[Outcome]) -> list[float]:
    return [Shaped()(outcome) for outcome in outcomes]


def test_nothing_is_earned_without_reading_the_task(session: Session[FormEnvironment]) -> None:
    tasks = session.tasks("train")
    pages = session.observe_many(tasks)
    submitted = session.run_many([(task, submit_only(page)) for task, page in zip(tasks, pages, strict=True)])
    assert values(submitted) == [0.0] * len(tasks)
    blind = values(session.run_many([(task, first_options(page)) for task, page in zip(tasks, pages, strict=True)]))
    assert max(blind) < 1.0
    assert sum(blind) / len(blind) < 0.35


def test_gold_of_another_task_does_not_succeed(session: Session[FormEnvironment]) -> None:
    pairs = gold_of(session, "train")
    crossed = [(task, pairs[at - 1][1]) for at, (task, _) in enumerate(pairs)]
    assert not any(outcome.is_success for outcome in session.run_many(crossed))


def test_a_second_submission_costs_and_is_skipped(session: Session[FormEnvironment]) -> None:
    task, gold = gold_of(session, "train")[1]
    last = gold.splitlines()[-1]
    (outcome,) = session.run_many([(task, f"{gold}\n{last}")])
    assert outcome.actions[-1].status == "skipped"
    assert outcome.num_submissions == 1
    assert Shaped()(outcome) == pytest.approx(0.9)


def test_words_of_success_earn_nothing(session: Session[FormEnvironment]) -> None:
    for task, gold in gold_of(session, "train")[:4]:
        refs = [action.ref for action in parse_plan(gold).actions if action.verb == "fill"]
        words = "\n".join(f'fill {ref} "Thank you, your form was accepted"' for ref in refs)
        (outcome,) = session.run_many([(task, f"accepted, success, done\n{words}")])
        assert Shaped()(outcome) == 0.0
        assert not outcome.is_parsed
        assert outcome.actions[0].status == "malformed"


def test_order_of_fields_of_one_page_does_not_matter(session: Session[FormEnvironment]) -> None:
    simple = [(task, plan) for task, plan in gold_of(session, "train") if "p2." not in plan]
    for task, plan in simple[:4]:
        *fields, submit = plan.splitlines()
        (page,) = session.observe_many([task])
        if any(control.condition for control in page.controls):
            continue
        (outcome,) = session.run_many([(task, "\n".join([*reversed(fields), submit]))])
        assert Shaped()(outcome) == 1.0


def test_an_extra_field_spoils_success(session: Session[FormEnvironment]) -> None:
    for task, gold in gold_of(session, "train"):
        wanted = {item.name for item in task.gold}
        (page,) = session.observe_many([task])
        free = [
            control
            for control in page.controls
            if control.kind == "text" and control.field not in wanted and not control.condition
        ]
        if free and free[0].page_number == 1:
            (outcome,) = session.run_many([(task, f'fill {free[0].ref} "more"\n{gold}')])
            if outcome.is_submitted:
                assert not outcome.is_clean
                assert Success()(outcome) == 0.0


def test_a_task_whose_gold_cannot_win_fails_its_self_check(tmp_path) -> None:
    from dataclasses import replace

    from harness.environments import FormSettings

    with Session(FormEnvironment(FormSettings(counts={"train": 2}, cache_dir=tmp_path, kinds=("contact",)))) as opened:
        good, other = opened.tasks("train")
        bad = replace(other, gold=(*other.gold, replace(other.gold[0], name="no_such_field")))
        assert list(opened.self_check([good, bad])) == [bad.id]


def test_the_proof_says_which_task_fails_and_why(session: Session[FormEnvironment]) -> None:
    proofs = prove(session, ["train", "test"], max_tasks=2, executor="fast")
    assert [proof.task.split for proof in proofs] == ["train", "train", "test", "test"]
    assert all(proof.holds and proof.reason == "" for proof in proofs)
