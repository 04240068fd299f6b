"""Repair by remasking: which lines stay, that they are never scored, and that the rest is scored given them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dllm_rl import registry
from dllm_rl.episodes import Situation
from dllm_rl.errors import ConfigError
from dllm_rl.records.rollout import Completion, Turn
from dllm_rl.records.tasks import ActionResult, Control, Observation, Outcome, Task
from dllm_rl.records.types import SampledRow
from dllm_rl.repair import Repair, kept_lines, line_numbers, refuse_repair
from dllm_rl.testing.policies import PLANS, prompts_of, random_policy, rewarded
from dllm_rl.training.engine import RolloutEngine

TASK = Task(id="train/t", split="train", site="s", instruction="Do it.", gold=())
PAGE = Observation(
    titles=("Join",),
    controls=(
        Control(ref="p1.e1", kind="text", name="Name"),
        Control(ref="p1.e2", kind="select", name="Plan", options=("Basic", "Pro")),
        Control(ref="p1.e3", kind="radio", name="Yes", group="News"),
        Control(ref="p1.e4", kind="button", name="Send"),
    ),
)
RULES = [name for name, cls in registry.items("sampler") if {"masked", "block"} <= set(cls.families)]


def turn(*actions: tuple[str, str], page: Observation = PAGE, sampled: SampledRow | None = None) -> Turn:
    results = tuple(
        ActionResult(line=line, text=text, status=status)  # type: ignore[arg-type]
        for line, (text, status) in enumerate(actions, start=1)
    )
    plan = "\n".join(text for text, _ in actions)
    return Turn(
        observation=page,
        completion=Completion(plan=plan, sampled=sampled),
        outcome=Outcome(task_id=TASK.id, actions=results),
    )


DONE = (('fill p1.e1 "Anna"', "ok"), ('select p1.e2 "Pro"', "ok"), ("choose p1.e3", "ok"), ("submit p1.e4", "ok"))


@pytest.mark.parametrize(
    ("actions", "errors", "wanted"),
    [
        (DONE, (), [1, 2, 3]),
        (DONE, ("Name: this one is taken.",), [2, 3]),
        (DONE, ("Something is wrong with News.", "Plan: choose one."), [1]),
        ((DONE[0], ('select p1.e2 "Pr"', "failed"), ("submit p1.e4", "skipped")), (), [1]),
        ((("fil p1.e1", "malformed"), ("choose p1.e3", "skipped")), (), []),
        # What an environment of texts was given is not one action.
        ((("I would say seven", "ok"), ('fill p1.e1 "Anna" submit', "ok"), ("", "ok")), (), []),
        ((("scroll down", "ok"), ('note "x"', "ok"), DONE[0], ("click p1.e3", "ok"), ("wait", "ok")), (), [3]),
    ],
)
def test_lines_stay_that_say_what_fields_hold_and_that_nothing_names(actions, errors, wanted) -> None:
    assert kept_lines(turn(*actions), replace(PAGE, errors=errors)) == wanted


def test_lines_are_counted_as_an_episode_counts_them() -> None:
    policy = random_policy("masked")
    canvas = policy.canvas
    ids = torch.tensor(canvas.encode('fill p1.e1 "A"\n\nsubmit p1.e3'))
    assert line_numbers(canvas, ids).tolist() == [1] * 8 + [0] * 8 + [2] * 8 + [0] * 12
    # Behind the end nothing is a line.
    assert line_numbers(canvas, torch.tensor(canvas.encode(""))).sum() == 0


def written(policy, plan: str, log_probs: torch.Tensor) -> SampledRow:
    """A plan as if it had been sampled, with these log-probabilities."""
    prompts = prompts_of(policy, (0, 1))
    drawn = registry.get("sampler", "low_confidence")().generate(policy, prompts, seed=0)
    events = drawn.trajectory.events
    column = torch.arange(len(events.column)) % drawn.ids.shape[1]
    assert torch.equal(events.column.sort().values, column.sort().values.int())
    events = replace(events, log_prob=log_probs[events.column.long()])
    ids = torch.tensor([policy.canvas.encode(PLANS[1]), policy.canvas.encode(plan)])
    completions = replace(drawn, ids=ids, trajectory=replace(drawn.trajectory, events=events))
    return SampledRow(prompts=prompts, completions=completions, row=1)


def begun(repair: Repair, policy, last: Turn, now: Observation):
    situation = Situation(row=0, task=TASK, turns=(last,), observation=now)
    return repair.canvas(policy, situation)


def test_a_turn_begins_with_what_stays_of_the_last_plan() -> None:
    policy = random_policy("masked")
    log_probs = torch.zeros(36)
    log_probs[10] = -2.0
    log_probs[1] = -0.2
    last = turn(DONE[0], ('select p1.e2 "Pro"', "failed"), ("submit p1.e4", "skipped"))
    last = turn(
        *[(a.text, a.status) for a in last.outcome.actions], sampled=written(policy, last.completion.plan, log_probs)
    )
    ids = policy.canvas.encode(last.completion.plan)
    blank = policy.mask_id
    assert begun(Repair(), policy, last, PAGE).tolist() == ids[:8] + [blank] * 28
    sure = begun(Repair(confidence=0.5), policy, last, PAGE)
    assert sure.tolist() == ids[:8] + [blank] * 28, "what is masked anyway was drawn with little confidence"
    doubtful = begun(Repair(confidence=0.9), policy, last, PAGE)
    assert doubtful.tolist() == [ids[0], blank, *ids[2:8]] + [blank] * 28


def test_a_greedy_pass_records_the_doubts_of_temperature_one() -> None:
    """So `confidence` masks in a greedy pass, too."""
    policy = random_policy("masked", sharpness=4.0)
    prompts = prompts_of(policy, (0,))
    drawn = registry.get("sampler", "low_confidence")(temperature=0.0).generate(policy, prompts, seed=0)
    log_probs = drawn.trajectory.log_probs[drawn.mask]
    assert int((log_probs < math.log(0.9)).sum()) > 0 and bool((log_probs < 0).any())
    completions = replace(drawn, ids=torch.tensor([policy.canvas.encode(DONE[0][0])]))
    last = turn(DONE[0], sampled=SampledRow(prompts=prompts, completions=completions, row=0))
    kept = begun(Repair(confidence=0.9), policy, last, PAGE)[:8] != policy.mask_id
    assert torch.equal(kept, drawn.trajectory.log_probs[0, :8] >= math.log(0.9))


def test_a_line_whose_ref_means_another_control_by_now_does_not_stay() -> None:
    """A field that appears above moves the refs of all below it."""
    controls = (
        Control(ref="p1.e1", kind="text", name="Company"),
        *(replace(item, ref=f"p1.e{place}") for place, item in enumerate(PAGE.controls, start=2)),
    )
    assert kept_lines(turn(*DONE), replace(PAGE, controls=controls)) == []
    assert kept_lines(turn(*DONE), replace(PAGE, controls=PAGE.controls[:2])) == [1, 2]


def test_a_plan_for_another_page_or_of_nobody_is_not_repaired() -> None:
    policy = random_policy("masked")
    sampled = written(policy, DONE[0][0], torch.zeros(36))
    last = turn(DONE[0], sampled=sampled)
    other = replace(PAGE, titles=("", "Next"))
    empty = policy.empty_canvas(1)[0]
    assert not torch.equal(begun(Repair(), policy, last, PAGE), empty)
    assert torch.equal(begun(Repair(), policy, last, other), empty)
    assert torch.equal(begun(Repair(), policy, turn(DONE[0]), PAGE), empty)
    first = Situation(row=0, task=TASK, turns=(), observation=PAGE)
    prompts = prompts_of(policy, (0,))
    assert Repair().begin(policy, prompts, [first]) is prompts


def given_rows(policy, name: str, **options):
    """Three rows: two that begin with lines of a plan, and one that begins empty."""
    prompts = prompts_of(policy, (0, 1, 2))
    blank = policy.process.blank_id
    given = policy.empty_canvas(3)
    given[0, :16] = torch.tensor(policy.canvas.encode(PLANS[0]))[:16]
    given[0, 3] = blank
    given[1, 8:16] = torch.tensor(policy.canvas.encode(PLANS[2]))[:8]
    prompts = replace(prompts, given=given)
    sampler = registry.get("sampler", name)(**options)
    return given, given != blank, prompts, sampler.generate(policy, prompts, seed=2)


@pytest.mark.parametrize("family", ["masked", "block"])
@pytest.mark.parametrize("name", RULES)
def test_what_is_given_stands_and_is_no_draw(family, name) -> None:
    policy = random_policy(family)
    given, stands, prompts, out = given_rows(policy, name)
    read = policy.canvas.until_eos(out.ids)
    assert torch.equal(out.ids[stands & read], given[stands & read])
    assert not (out.mask & stands).any() and not (out.trajectory.log_probs[stands] != 0).any()
    assert torch.equal(out.trajectory.canvases[:, 0], given)
    assert torch.equal(out.trajectory.events.is_given() & read, stands & read)
    assert (out.mask | stands | ~read).all(), "every other column is drawn"
    alone = registry.get("sampler", name)().generate(
        policy, replace(prompts, given=None).rows(torch.tensor([2])), seed=2
    )
    assert torch.equal(alone.ids[0], out.ids[2]), "a row that begins empty is written as ever"


def rollouts_of(policy, prompts, out):
    return rewarded(
        policy,
        prompts,
        out,
        group_ids=torch.zeros(3, dtype=torch.long),
        valid=torch.ones(3, dtype=torch.bool),
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize("family", ["masked", "block"])
def test_a_replay_gives_the_probabilities_of_the_draws(family) -> None:
    policy = random_policy(family)
    _, stands, prompts, out = given_rows(policy, "threshold")
    rollouts = rollouts_of(policy, prompts, out)
    views = policy.process.replay(rollouts, torch.Generator().manual_seed(0))
    scores = (policy.view_log_probs(rollouts, views) * views.score).sum(0)
    assert not (views.score & stands).any()
    assert torch.allclose(scores, torch.where(out.mask, out.trajectory.log_probs, 0.0), atol=1e-4)


VIEWS = {
    "elbo": lambda process, rollouts, noise: process.elbo(rollouts, noise, num_draws=3),
    "quadrature": lambda process, rollouts, noise: process.quadrature(rollouts, noise, num_nodes=3),
    "one_step": lambda process, rollouts, noise: process.one_step(rollouts, noise),
    "strata": lambda process, rollouts, noise: process.strata(rollouts, noise),
    "left_to_right": lambda process, rollouts, noise: process.left_to_right(rollouts, noise),
    "all columns": lambda process, rollouts, noise: process.elbo(process.scoring_all(rollouts), noise),
}


@pytest.mark.parametrize("family", ["masked", "block"])
@pytest.mark.parametrize("kind", VIEWS)
def test_every_view_shows_what_is_given_and_scores_the_rest(family, kind) -> None:
    policy = random_policy(family)
    given, stands, prompts, out = given_rows(policy, "threshold")
    views = VIEWS[kind](policy.process, rollouts_of(policy, prompts, out), torch.Generator().manual_seed(1))
    shown = views.tokens == torch.where(stands, given, -1)
    assert shown[:, stands].all()
    assert not (views.score & stands).any()
    assert (views.tokens[views.score] == policy.mask_id).all()


@pytest.mark.parametrize("family", ["masked", "block"])
def test_every_drawn_column_is_scored_once_in_expectation(family) -> None:
    """So the ELBO is one of the drawn columns given the others: with a mask on what is given it would be below 1."""
    policy = random_policy(family)
    _, stands, prompts, out = given_rows(policy, "threshold")
    rollouts = rollouts_of(policy, prompts, out)
    noise, total, draws = torch.Generator().manual_seed(5), torch.zeros(out.ids.shape), 400
    for _ in range(draws):
        views = policy.process.elbo(rollouts, noise, num_draws=2)
        total += (views.weight * views.score).sum(0)
    mean = total / draws
    assert torch.allclose(mean[out.mask], torch.ones(int(out.mask.sum())), atol=0.35)
    assert float(mean[out.mask].mean()) == pytest.approx(1, abs=0.03)
    assert not mean[stands].any()


def test_an_engine_writes_a_turn_from_what_stays_of_the_last() -> None:
    policy = random_policy("masked")
    sampled = written(policy, "\n".join(text for text, _ in DONE[:2]), torch.zeros(36))
    last = turn(DONE[0], ('select p1.e2 "Pro"', "failed"), sampled=sampled)
    situation = Situation(row=0, task=TASK, turns=(last,), observation=PAGE)
    engine = RolloutEngine(
        policy=policy,
        sampler=registry.get("sampler", "threshold")(),
        environment=None,  # type: ignore[arg-type]
        reward=registry.get("reward", "outcome")(),
        repair=Repair(),
    )
    begun_with = policy.canvas.encode(last.completion.plan)[:8]
    for engine_, is_kept in ((engine, True), (replace(engine, repair=None), False)):
        (completion,) = engine_.write([situation], [0], seed=1)
        drawn = completion.sampled
        assert drawn is not None
        assert (drawn.completions.ids[0, :8].tolist() == begun_with) == is_kept
        assert drawn.completions.mask[0, :8].any() != is_kept


@pytest.mark.parametrize("family", ["autoregressive", "slot", "flow"])
def test_families_that_cannot_go_on_are_refused(family) -> None:
    with pytest.raises(ConfigError, match=f"the {family} family cannot go on"):
        refuse_repair(family, is_aligned=True)


def test_families_that_derive_from_those_that_can_go_on(monkeypatch) -> None:
    derived = type("Derived", (registry.get("policy", "block"),), {"family": "derived"})
    monkeypatch.setitem(registry._REGISTRY["policy"], "derived", derived)
    refuse_repair("derived", is_aligned=True)


def test_an_engine_refuses_families_that_cannot_go_on() -> None:
    with pytest.raises(ConfigError, match="the slot family cannot go on"):
        RolloutEngine(
            policy=random_policy("slot"),
            sampler=registry.get("sampler", "slots")(),
            environment=None,  # type: ignore[arg-type]
            reward=registry.get("reward", "outcome")(),
            repair=Repair(),
        )


def test_free_running_lines_are_refused() -> None:
    with pytest.raises(ConfigError, match="free-running lines"):
        refuse_repair("masked", is_aligned=False)
    refuse_repair("block", is_aligned=True)


@pytest.mark.parametrize("confidence", [-0.1, 1.0])
def test_a_confidence_that_is_none_is_refused(confidence) -> None:
    with pytest.raises(ConfigError, match="from 0 up to below 1"):
        Repair(confidence=confidence)
