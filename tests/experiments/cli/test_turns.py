"""`eval` and `episode` play a trained cell as it was trained, and any other policy as usual or as they are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.files import write_json
from dllm_rl.notebook import Notebook
from dllm_rl.repair import Repair
from dllm_rl.session import Session
from dllm_rl.training import engine as engines
from experiments.cli import evaluate
from experiments.cli.evaluate import Draws, EvaluatedTasks, measure, show_film
from experiments.cli.turns import TurnOptions, Turns, turns_of
from experiments.design.base import Component
from experiments.design.turns import RolesSettings
from experiments.run import policies
from harness.environments import EpisodeEnvironment
from tests.dllm_rl.test_episodes import Counting
from tests.experiments.grids import plan
from tests.tiny_policies import make_tiny_policy

TRAINED = Turns(notebook=Notebook(memory="none"), repair=Repair(confidence=0.5))


@pytest.fixture
def cell(tmp_path):
    """Folder of a cell's seed, as a grid leaves it."""
    grid = plan(
        tmp_path,
        "environment={name: episodes}",
        "notebook.memory=none",
        "policies=[masked]",
        "policies.masked.facts.line_width=8",
        "policies.masked.repair={confidence: 0.5}",
        "controls=[]",
    )
    unit = grid.units[-1]
    unit.folder.mkdir(parents=True)
    write_json(unit.folder / "cell.json", unit.settings)
    return str(unit.folder)


def played(checkpoint, *, sampler="threshold", family="masked", **options):
    chosen = Component(name=sampler, options={})
    return turns_of(
        checkpoint,
        make_tiny_policy(family),
        TurnOptions(**options),
        environment=EpisodeEnvironment(),
        sampler=chosen,
    )


def test_a_trained_cell_plays_as_it_was_trained_unless_told_otherwise(cell) -> None:
    assert played(cell) == TRAINED
    assert played(cell, repair="null") == Turns(notebook=TRAINED.notebook, repair=None)
    told = played(cell, notebook="{memory: actions, feedback: false}", repair="{}")
    assert told == Turns(notebook=Notebook(memory="actions", feedback=False), repair=Repair())
    assert played("builtin:masked") == Turns(notebook=Notebook(), repair=None)
    assert played("builtin:masked", roles="{grounder: false}").roles == RolesSettings(grounder=False)
    with pytest.raises(ConfigError, match="roles and repair were given"):
        played(cell, roles="{}")
    with pytest.raises(ConfigError, match="a grounder and no planner"):
        played("builtin:masked", roles="{planner: false}")
    with pytest.raises(ConfigError, match="the slot family cannot go on"):
        played("builtin:slot", family="slot", repair="{}")


def test_policies_that_a_cells_roles_have_of_their_own_are_loaded_where_the_command_says(tmp_path) -> None:
    """A cell that was trained on another machine."""
    own = "{own: {reflector: {checkpoint: 'builtin:slot', sampler: slots, device: cuda, dtype: bfloat16}}}"
    settings = ("environment={name: episodes}", "policies=[masked]", "controls=[]", f"policies.masked.roles={own}")
    unit = plan(tmp_path, *settings).units[-1]
    write_json(unit.folder / "cell.json", unit.settings)
    found = played(str(unit.folder)).roles.own["reflector"]
    assert (found.device, found.dtype) == ("cpu", "bfloat16")


def test_eval_plays_a_cell_as_it_was_trained_and_pays_the_outcome(cell, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(engines, "evaluate", lambda engine, tasks, **_: seen.append(engine) or [])
    monkeypatch.setattr(evaluate, "build_session", lambda component: Session(Counting()))
    monkeypatch.setattr(policies, "load", lambda *_, **__: make_tiny_policy("masked"))
    tasks = EvaluatedTasks(environment=None, splits=("val",), max_tasks=1)
    draws = Draws(sampler=None, temperature=1.0, num_samples=1, seed=0)
    assert measure(cell, tasks, draws, turns=TurnOptions(), out=None, as_json=False) == 0
    (engine,) = seen
    assert Turns(notebook=engine.notebook, repair=engine.repair) == TRAINED
    assert type(engine.reward).__name__ == "Success"


def test_a_cell_writes_in_its_environment_with_the_sampler_of_its_evaluation(tmp_path, monkeypatch) -> None:
    """Where no option names others."""
    level = "policies.masked.evaluation_sampler={name: threshold, options: {threshold: 0.7}}"
    grid = plan(tmp_path, "environment={name: toy_sort}", level, "policies=[masked]", "controls=[]")
    unit = grid.units[-1]
    write_json(unit.folder / "cell.json", unit.settings)
    seen = []
    monkeypatch.setattr(engines, "evaluate", lambda engine, tasks, **_: seen.append(engine) or [])
    monkeypatch.setattr(policies, "load", lambda *_, **__: make_tiny_policy("masked"))
    draws = Draws(sampler=None, temperature=1.0, num_samples=1, seed=0)
    for environment, sampler in ((None, None), ("{name: toy_copy}", "low_confidence")):
        tasks = EvaluatedTasks(environment=environment, splits=("val",), max_tasks=1)
        told = replace(draws, sampler=sampler)
        assert measure(str(unit.folder), tasks, told, turns=TurnOptions(), out=None, as_json=False) == 0
    own, other = seen
    names = [type(engine.environment.environment).__name__ for engine in seen]
    assert names == [registry.get("environment", name).__name__ for name in ("toy_sort", "toy_copy")]
    assert (own.sampler.name, own.sampler.threshold, other.sampler.name) == ("threshold", 0.7, "low_confidence")


def test_a_film_is_of_one_plan(cell, monkeypatch) -> None:
    monkeypatch.setattr(policies, "load", lambda *_, **__: make_tiny_policy("masked"))
    with pytest.raises(ConfigError, match=r"trained in the environment 'episodes'.* Use `dllm-rl episode`"):
        show_film(cell, split="val", number=0, sampler=None, temperature=0.0, seed=0, out=None)
