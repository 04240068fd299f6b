"""Demonstrations for roles: in play they make the oracle's turns, switches leave sets out, weights are as published."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from dllm_rl.episodes import Situation
from dllm_rl.errors import ConfigError
from dllm_rl.notebook import Notebook
from dllm_rl.records.rollout import Completion
from dllm_rl.roles import Roles
from dllm_rl.training.calls import Team
from experiments.design.config import validate
from experiments.design.presets import load_preset
from experiments.run.recipe import demonstrations, load_recipe
from experiments.run.rehearsals import ErrandDemonstrations, errand_demonstrations
from experiments.run.role_demonstrations import RoleDemonstrations, collected, role_demonstrations, shares
from experiments.run.warmstarts import _new_policy
from harness.errands import fits, make_errand, make_tasks, rehearse
from tests.dllm_rl.training.test_calls import long_policy

TASKS = [
    task for task in make_tasks("train", 60, seed=1, kinds=None, difficulties=(1, 2)) if fits(make_errand(task.site))
]


def fits_any(text: str) -> bool:
    return True


def shown(**settings):
    played = [
        (task, rehearse(task, max_actions=8, chance=Random(index), detours=0.3)) for index, task in enumerate(TASKS)
    ]
    chosen = RoleDemonstrations(**settings)
    return played, collected(
        [item for task, episode in played for item in role_demonstrations(task, episode, chosen, Notebook(), fits_any)]
    )


class Oracle:
    """Says what was demonstrated for a prompt; one that was not demonstrated is an error."""

    def __init__(self, sets) -> None:
        self.known: dict[str, set[str]] = {}
        for item in (item for items in sets.values() for item in items):
            self.known.setdefault(item.prompt, set()).add(item.plan)
        self.is_of_two_minds = False
        self.policy = long_policy("masked", max_prompt=100_000)

    def say(self, prompts, texts, *, seed):
        self.is_of_two_minds |= any(len(self.known[text]) > 1 for text in texts)
        return [Completion(plan=min(self.known[text]), prompt=text) for text in texts]


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"reflector": False},
        {"planner": False, "grounder": False, "summarizer": False},
        {"grounder": False},
        {"summarizer": False},
    ],
)
def test_whoever_says_in_play_what_was_demonstrated_plays_as_the_oracle(switches) -> None:
    """So prompts are those of play, names tell controls apart, and what is put together is the oracle's turn."""
    played, sets = shown(**switches)
    speaker: Any = Oracle(sets)
    team = Team(roles=Roles(**switches))
    num_turns = num_unclear = 0
    for task, episode in played:
        for at, turn in enumerate(episode.turns):
            if at in episode.slips:
                continue
            now = Situation(row=0, task=task, turns=episode.turns[:at], observation=turn.observation)
            speaker.is_of_two_minds = False
            (said,) = team.write(speaker, Notebook(), [now], [0], seed=0, max_turns=None)
            if speaker.is_of_two_minds:
                num_unclear += 1
                continue
            # A Reflector that says done has no answer to give.
            wanted = "done" if _is_unanswered(switches, turn, at) else turn.completion.plan
            assert said.plan == wanted, task.id
            num_turns += 1
    assert num_turns > 140
    # An actor, who remembers nothing, cannot tell a page that it comes back to.
    assert (num_unclear > 0) is (not switches.get("planner", True))


def _is_unanswered(switches, turn, at: int) -> bool:
    is_said = at > 0 and switches.get("reflector", True) and turn.completion.plan.startswith("done")
    return is_said and not switches.get("summarizer", True)


@pytest.mark.parametrize(
    ("switches", "sets"),
    [
        ({}, {"reflecting", "planning", "acting", "grounding", "summarizing"}),
        ({"reflector": False}, {"planning", "acting", "grounding", "summarizing"}),
        ({"grounder": False, "planning": False}, {"reflecting", "acting", "summarizing"}),
        ({"planner": False, "grounder": False, "summarizer": False}, {"reflecting", "planning", "acting"}),
    ],
)
def test_there_is_a_set_for_each_role_that_is_asked(switches, sets) -> None:
    assert set(shown(**switches)[1]) == sets


def test_slips_are_reflected_on_and_not_imitated() -> None:
    played, sets = shown()
    num_slips = sum(len(episode.slips) for _, episode in played)
    num_turns = sum(len(episode.turns) for _, episode in played)
    failures = [item for item in sets["reflecting"] if item.plan.startswith("failed ")]
    assert num_slips > 20 and len(failures) >= num_slips
    assert len(sets["acting"]) + sum(item.plan == "done" for item in sets["reflecting"]) == num_turns - num_slips
    assert len(sets["planning"]) == num_turns
    assert {item.plan.split(" ")[0] for item in sets["planning"]} == {"end", "error", "page", "same"}


def test_weights_are_the_published_ones_between_equal_sets_and_sizes() -> None:
    """alpha = C / E, E = (1 - beta^n) / (1 - beta), beta = 1 - 10^-k; a set's share is n alpha."""
    sizes = {"small": 50, "large": 5000}
    found = shares(sizes, "published", 2)
    beta = 0.99
    alpha = {name: (1 - beta) / (1 - beta**size) for name, size in sizes.items()}
    assert found["small"] / found["large"] == pytest.approx(50 * alpha["small"] / (5000 * alpha["large"]))
    assert shares(sizes, "uniform", 3) == {"small": 0.5, "large": 0.5}
    assert shares(sizes, "proportional", 3)["small"] == pytest.approx(50 / 5050)
    assert shares(sizes, "published", 9)["small"] == pytest.approx(0.5, abs=1e-3)
    assert shares(sizes, "published", 1)["small"] == pytest.approx(50 / 5050, abs=1e-3)


@pytest.mark.parametrize("weighting", ["published", "uniform", "proportional"])
def test_a_weighting_decides_what_is_shown_how_often(weighting) -> None:
    made = errand_demonstrations(
        ErrandDemonstrations(roles=RoleDemonstrations(weighting=weighting)), count=400, seed=1, fits_prompt=fits_any
    )
    answers = sum(item.prompt.startswith("role: summarizer") for item in made) / len(made)
    points = sum(item.prompt.startswith("role: grounder") for item in made) / len(made)
    assert len(made) == 400
    if weighting == "proportional":
        assert points > 0.3 and answers < 0.05
    else:
        assert answers == pytest.approx(0.2, abs=0.05) and points == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("stage", load_recipe("episodes_roles").families)
def test_what_the_recipe_shows_fits_into_its_prompts_and_canvas(stage, tmp_path) -> None:
    """And its teams are those of the preset."""
    recipe = load_recipe("episodes_roles")
    policy = _new_policy(stage, recipe, tmp_path)
    settings = recipe.demonstrations_of(stage).model_copy(update={"count": 600})
    made = demonstrations(settings, policy.fits)
    for item in made:
        ids = torch.tensor(policy.canvas.encode(item.plan))
        assert policy.canvas.decode(ids) == item.plan and policy.fits(item.prompt)
    level = load_preset("episodes_roles").policies[stage]
    assert settings.errands is not None and settings.errands.roles is not None and level.roles is not None
    assert settings.errands.roles.build() == level.roles.build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": "uniform", "exponent": 3}, "exponent has no effect on the uniform weighting"),
        ({"planner": False}, "a grounder and no planner"),
        ({"weighting": "some"}, "weighting"),
        ({"own": {}}, "no such key"),
    ],
)
def test_settings_without_effect_are_refused(settings, message) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(RoleDemonstrations, settings, source="roles")
