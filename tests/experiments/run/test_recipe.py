"""Recipes of warm starts: what the demonstrations show, and policies that go on from those that ship."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
import yaml

from dllm_rl import registry
from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.files import read_json, write_json
from dllm_rl.policies.checkpoints import CHECKPOINTS
from dllm_rl.policies.loading import load_policy
from dllm_rl.records.evidence import as_planned
from dllm_rl.records.plan import parse_plan
from dllm_rl.reward import scores
from experiments.cli import commands
from experiments.design.presets import load_preset
from experiments.run.recipe import (
    Demonstrations,
    Recipe,
    demonstrations,
    inversions,
    load_recipe,
    recipe_names,
    refuse_wrong_stages,
)
from experiments.run.warmstarts import keep_recipe, train_stage
from harness.sites import OBSTACLES, expected_page, gold_plan, make_site, make_tasks

NEWER = {"count": 400, "sites_per_kind": 5000, "design": "newer", "obstacles": ["second_button"]}
NEWER_TASKS = {"count": 400, "sites_per_kind": 5000, "seed": 0, "obstacles": ("second_button",)}
SHARE = {"finish_share": 0.25}
STAGE = {"init": "builtin:masked", "family": "masked", "train": {"passes": 4, "batch_size": 4}}


def shown(**settings):
    return demonstrations(Demonstrations.model_validate({**NEWER, **settings}))


def last_ref(plan: str) -> str:
    return parse_plan(plan).actions[-1].ref


def test_the_finish_share_says_how_many_recordings_hand_the_form_in() -> None:
    finished, unfinished, mixed = (shown(finish_share=share) for share in (1.0, 0.0, 0.25))
    assert [item.prompt for item in finished] == [item.prompt for item in unfinished] == [item.prompt for item in mixed]
    assert not any(one.plan == other.plan for one, other in zip(finished, unfinished, strict=True))
    share = sum(one.plan == other.plan for one, other in zip(finished, mixed, strict=True)) / len(mixed)
    assert share == pytest.approx(0.25, abs=0.07)
    for item, one, other in zip(mixed, finished, unfinished, strict=True):
        assert item.plan in (one.plan, other.plan)


def test_the_older_share_shows_the_older_page_and_its_plan() -> None:
    older = demonstrations(Demonstrations(count=NEWER["count"], sites_per_kind=NEWER["sites_per_kind"]))
    mixed, newer = shown(finish_share=0.25, older_share=0.5), shown(finish_share=0.25)
    is_older = [one.prompt == other.prompt for one, other in zip(mixed, older, strict=True)]
    assert sum(is_older) / len(mixed) == pytest.approx(0.5, abs=0.08)
    for was_older, item, one, other in zip(is_older, mixed, older, newer, strict=True):
        assert (item.prompt, item.plan) == (one.prompt, one.plan) if was_older else item.prompt == other.prompt


def test_over_coaching_turns_crosses_sizes_with_epochs_and_its_preset_has_every_start() -> None:
    """And a smaller set is the beginning of a larger one, so that sizes differ in nothing else."""
    recipe = load_recipe("over_coaching_turns")
    counts = {stage: recipe.demonstrations_of(stage).count for stage in recipe.families}
    epochs = {stage: own.train["passes"] / (counts[stage] or 0) for stage, own in recipe.families.items()}
    assert {(counts[stage], epochs[stage]) for stage in recipe.families} == set(product((500, 2000, 8000), (1, 4)))
    assert {frozenset(own.train.items() - {("passes", own.train["passes"])}) for own in recipe.families.values()} == {
        frozenset({("batch_size", 16), ("learning_rate", 1e-3), ("warmup_steps", 10), ("decay_share", 0.6)})
    }
    preset = load_preset("over_coaching_turns")
    assert [Path(level.checkpoint).name for level in preset.policies.values()] == list(recipe.families)
    few, more = (
        demonstrations(recipe.demonstrations_of("turns_500").model_copy(update={"count": count})) for count in (30, 60)
    )
    assert more[:30] == few


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_every_obstacle_can_be_demonstrated(obstacle: str) -> None:
    assert len(shown(count=16, obstacles=(obstacle,), finish_share=0.5)) == 16


def test_recipes_that_ship_are_sound() -> None:
    assert "builtin" in recipe_names()
    told = get_type_hints(commands.warmstart, include_extras=True)["recipe"].__metadata__[0].help
    assert f"({', '.join(recipe_names())})" in told
    for name in recipe_names():
        refuse_wrong_stages(load_recipe(name))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"demonstrations": {"count": 4, "finish_share": 0.5}}, "finish_share has no effect in the design 'older'"),
        ({"demonstrations": {**NEWER, "inversion_share": 1.0, "finish_share": 0.5}}, "has no effect where only instr"),
        ({"tokenizer": {"vocab_size": 400}}, "goes on from builtin:masked, and so with its tokenizer"),
        ({"families": {"masked": {"init": "builtin:maskde"}}}, "Did you mean 'masked'"),
        (
            {
                "demonstrations": {**NEWER, "finish_share": 0.5},
                "families": {"masked": {**STAGE, "demonstrations": SHARE}},
            },
            "every stage has its own. Set families.masked.demonstrations.finish_share",
        ),
        ({"families": {"masked": {}}}, "starts from nothing, and the recipe has no tokenizer"),
        ({"families": {"masked": {**STAGE, "demonstrations": {"finish_shar": 0.5}}}}, "Did you mean 'finish_share'"),
    ],
)
def test_recipes_that_cannot_work_are_refused(tmp_path, changes, says) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"demonstrations": {"count": 4}, "families": {"masked": STAGE}} | changes))
    with pytest.raises((ConfigError, CheckpointError), match=says):
        refuse_wrong_stages(load_recipe(str(path)))


def test_an_unknown_recipe_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'finish'"):
        load_recipe("finsh")


def test_a_stage_goes_on_from_a_checkpoint_that_ships(tmp_path) -> None:
    recipe = {
        "demonstrations": {"count": 8, "design": "newer", "obstacles": ["consent"], "finish_share": 0.5},
        "families": {"masked_mine": STAGE},
    }
    write_json(tmp_path / "recipe.json", recipe)
    train_stage("masked_mine", tmp_path)
    start, made = load_policy("builtin:masked"), load_policy(str(tmp_path / "masked_mine"))
    assert made.facts == start.facts
    assert made.tokenizer.get_vocab() == start.tokenizer.get_vocab()
    before, after = start.model.state_dict(), made.model.state_dict()
    assert before.keys() == after.keys()
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert 0 < moved < 0.05
    assert not any(torch.isnan(value).any() for value in after.values())


def test_a_stage_goes_on_from_one_that_went_on_from_a_checkpoint_that_ships(tmp_path) -> None:
    recipe = {
        "demonstrations": {"count": 8},
        "families": {"first": STAGE, "second": {**STAGE, "family": "block", "init": "first"}},
    }
    refuse_wrong_stages(Recipe.model_validate(recipe))
    write_json(tmp_path / "recipe.json", recipe)
    for stage in recipe["families"]:
        train_stage(stage, tmp_path)
    first, second = (load_policy(str(tmp_path / stage)) for stage in recipe["families"])
    assert (second.family, second.facts) == ("block", replace(first.facts, family="block"))
    assert second.tokenizer.get_vocab() == first.tokenizer.get_vocab()
    before, after = first.model.state_dict(), second.model.state_dict()
    assert max(float((after[name] - before[name]).abs().max()) for name in before) < 0.05


def test_a_family_is_added_to_a_folder_whose_other_stages_are_the_same(tmp_path) -> None:
    """As docs/adding_a_family.md says: the warm starts that ship, and then one of a family of one's own."""

    def keep(*stages: str, **changes) -> None:
        families = {name: {**STAGE, **changes.get(name, {})} for name in stages}
        shared = {"count": changes.get("count", 8)}
        keep_recipe(Recipe.model_validate({"demonstrations": shared, "families": families}), tmp_path)

    def kept() -> list[str]:
        return list(read_json(tmp_path / "recipe.json")["families"])

    keep("first")
    keep("first", "mine")
    assert kept() == ["first", "mine"]
    keep("first")
    keep("other")
    assert kept() == ["first", "mine", "other"]
    with pytest.raises(ConfigError, match=r"of another recipe \(mine\)"):
        keep("first", "mine", mine={"family": "block"})
    with pytest.raises(ConfigError, match="of another recipe"):
        keep("first", count=9)
    assert kept() == ["first", "mine", "other"]


def test_the_recipe_of_what_ships_is_the_one_beside_it() -> None:
    shipped = (("builtin", "recipe.json"), ("finish", "recipe_finish.json"), ("episodes", "recipe_episodes.json"))
    for name, file in shipped:
        assert Recipe.model_validate_json((CHECKPOINTS / file).read_text()) == load_recipe(name)


def test_turns_of_errands_show_recoveries_and_no_slip() -> None:
    """What was refused stands in a later prompt, and what is imitated is what the oracle does there."""
    recipe = load_recipe("episodes", ["demonstrations.count=600"])
    plain = recipe.demonstrations.model_copy(
        update={"errands": recipe.demonstrations.errands.model_copy(update={"detours": 0.0})}  # type: ignore[union-attr]
    )
    slipping, straight = demonstrations(recipe.demonstrations), demonstrations(plain)
    assert len(slipping) == len(straight) == 600
    assert demonstrations(recipe.demonstrations) == slipping

    def refusals(shown):
        return sum("-> rejected" in item.prompt for item in shown)

    assert refusals(slipping) > refusals(straight) > 0
    openings = {item.prompt: item.plan for item in straight if "did " not in item.prompt}
    same = [item for item in slipping if item.prompt in openings]
    assert len(same) > 20 and all(item.plan == openings[item.prompt] for item in same)


def test_a_notebook_that_does_not_fit_is_cut_in_demonstrations_too() -> None:
    recipe = load_recipe("episodes", ["demonstrations.count=200"])
    whole = demonstrations(recipe.demonstrations)
    cut = demonstrations(recipe.demonstrations, lambda text: len(text) < 400)
    assert [item.plan for item in cut] == [item.plan for item in whole]
    assert sum(len(item.prompt) >= 400 for item in whole) > 0
    kept = ("did ", "-> ", "note ")
    for item in cut:
        assert len(item.prompt) < 400 or not any(
            line.startswith(kept) for line in item.prompt.split("\nplan:")[0].split("\n")
        )


def test_settings_of_forms_are_refused_beside_errands() -> None:
    with pytest.raises(ConfigError, match="dials: of forms"):
        load_recipe("episodes", ["demonstrations.dials=[0]"])
    with pytest.raises(ConfigError, match="wizard"):
        load_recipe("episodes", ["demonstrations.errands.kinds=[wizzard]"])


def test_both_ways_are_shown_of_different_tasks() -> None:
    """Chance alone decides which, and a plan is what it is without the inversions."""
    settings = Demonstrations.model_validate({**NEWER, "finish_share": 0.25, "inversion_share": 0.25})
    plans, inverted = demonstrations(settings), inversions(settings, load_policy("builtin:autoregressive"))
    assert len(plans) + len(inverted) == NEWER["count"]
    assert len(inverted) / NEWER["count"] == pytest.approx(0.25, abs=0.07)
    assert {item.prompt for item in plans} < {item.prompt for item in shown(finish_share=0.25)}
    tasks = {task.instruction for task in make_tasks("train", size="small", dials=(0, 1), **NEWER_TASKS)}
    written = {item.plan.replace("\n", " ") for item in inverted}
    assert written < tasks and not any(text in item.prompt for text in written for item in plans)
    assert not inversions(Demonstrations(count=4), load_policy("builtin:autoregressive"))


def test_an_inverter_is_shown_states_and_writes_instructions(tmp_path) -> None:
    recipe = {
        "demonstrations": {"count": 8, "seed": 2, "inversion_share": 1.0},
        "families": {"inverter": {**STAGE, "init": "builtin:autoregressive", "family": "autoregressive"}},
    }
    write_json(tmp_path / "recipe.json", recipe)
    train_stage("inverter", tmp_path)
    policy = load_policy("builtin:autoregressive")
    settings = Demonstrations(count=8, seed=2, inversion_share=1.0)
    tasks = make_tasks("train", count=8, seed=2, size="small", dials=(0, 1))
    for item, task in zip(inversions(settings, policy), tasks, strict=True):
        assert item.plan.replace("\n", " ") == task.instruction
        assert task.instruction not in item.prompt and task.gold[0].wanted[0] in item.prompt
    reward = registry.build(
        "reward", "flip", {"inverter_options": {"checkpoint": str(tmp_path / "inverter")}, "similarity": "idf"}
    )
    page = expected_page(make_site(tasks[0].site))
    (score,) = scores(reward, [as_planned(tasks[0].instruction, page, gold_plan(tasks[0], page))])
    assert score.claim is not None and not score.fault
