"""Cells of a grid differ in the declared factors and in nothing else; results are keyed by what they depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.training import engine, trainer
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset, preset_names
from experiments.design.units import GridPlan, Unit
from tests.experiments.grids import Tasks, plan, preset, task_sets


def test_factors_are_crossed_and_the_null_control_learns_nothing(tmp_path) -> None:
    cells = build_cells(preset(tmp_path))
    assert [cell.id for cell in cells if cell.role == "cell"] == [
        "autoregressive-grpo",
        "autoregressive-espo",
        "masked-grpo",
        "masked-espo",
    ]
    (null,) = [cell for cell in cells if cell.role == "null"]
    assert null.train["learning_rate"] == 0


def test_the_positive_control_is_one_of_the_cells(tmp_path) -> None:
    cells = build_cells(preset(tmp_path, "controls.positive_control={policy: masked, objective: espo}"))
    assert [(cell.id, cell.role) for cell in cells if cell.is_positive_control] == [("masked-espo", "cell")]
    assert not any(cell.is_positive_control for cell in build_cells(preset(tmp_path, "controls=[]")))
    with pytest.raises(ConfigError, match="the positive control has the policy 'slot'"):
        build_cells(preset(tmp_path, "controls.positive_control={policy: slot, objective: espo}"))
    with pytest.raises(ConfigError, match="the positive control has the objective 'gspo'"):
        build_cells(preset(tmp_path, "controls.positive_control={policy: masked, objective: gspo}"))


def test_a_setting_that_differs_outside_the_factors_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"masked-grpo differ in 'train\.steps' \(1 and 9\)"):
        build_cells(preset(tmp_path, "policies.masked.train.steps=9"))
    with pytest.raises(ConfigError, match=r"differ in 'train\.inner_steps'"):
        build_cells(preset(tmp_path, "objectives.espo.train.inner_steps=8"))


def test_a_declared_factor_may_differ(tmp_path) -> None:
    declared = "factors.objective=[objective,train.inner_steps]"
    cells = build_cells(preset(tmp_path, "objectives.espo.train.inner_steps=8", declared))
    assert {cell.train["inner_steps"] for cell in cells if cell.objective_level == "espo"} == {8}


def test_an_undefined_combination_is_refused_with_the_reason(tmp_path) -> None:
    with pytest.raises(ConfigError, match="objective 'espo_unshared' is not defined for the family 'autoregressive'"):
        build_cells(preset(tmp_path, "objectives.espo.name=espo_unshared"))
    with pytest.raises(ConfigError, match="sampler 'ar' is not defined for the family 'masked'"):
        build_cells(preset(tmp_path, "policies.masked.sampler={name: ar}"))


def test_a_reward_s_option_out_of_range_is_refused_with_the_plan(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"reward weights 0\.9, 0\.4, 0\.2; expected shares from 0 to 1"):
        plan(tmp_path, "reward={name: shaped, options: {submission: 0.9}}")


def test_the_two_by_eight_design_differs_in_the_method_and_its_mu_alone() -> None:
    cells = build_cells(load_preset("study16"))
    assert [sum(cell.role == role for cell in cells) for role in ("cell", "null", "negative")] == [16, 1, 1]
    sixteen = [cell for cell in cells if cell.role == "cell"]
    assert {cell.family for cell in sixteen} == {"masked", "flow"}
    mu = {cell.objective_level: cell.train["inner_steps"] for cell in sixteen}
    assert mu.pop("cj_grpo") == 2 and mu.pop("espo_mu8") == 8
    assert set(mu.values()) == {1} and len(mu) == 6
    assert {cell.objective.options["advantage"] for cell in sixteen} == {"centred"}
    assert {cell.objective.options["beta"] for cell in sixteen} == {0.0}


@pytest.mark.parametrize("objective", ["mdpo", "spg"])
def test_an_undefined_cell_of_the_study_is_refused_when_it_loads(objective: str) -> None:
    family = {"mdpo": "autoregressive", "spg": "flow"}[objective]
    changed = (
        [f"policies.flow={{checkpoint: 'builtin:{family}', sampler: {{name: ar}}}}"] if objective == "mdpo" else []
    )
    preset = load_preset("study16", [*changed, f"objectives.mdpo={{name: {objective}, options: {{beta: 0.0}}}}"])
    with pytest.raises(ConfigError, match=f"cell flow-mdpo: objective '{objective}' is not defined for the family"):
        build_cells(preset)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_that_ships_is_a_controlled_comparison(name: str) -> None:
    assert build_cells(load_preset(name))


def test_rewards_are_compared_where_they_are_declared_a_factor(tmp_path) -> None:
    known = {unit.name: unit.settings["training_digest"] for unit in plan(tmp_path).units if not unit.is_warm_start}
    paid = "objectives.espo.reward=tree"
    with pytest.raises(ConfigError, match=r"differ in 'reward\.name' .*which no factor declares"):
        plan(tmp_path, paid)
    units = plan(tmp_path, paid, "factors.objective=[objective, reward]").units
    found = {unit.name: unit.settings["training_digest"] for unit in units if not unit.is_warm_start}
    assert {name for name in known if known[name] != found[name]} == {name for name in known if "espo" in name}


def test_a_reward_that_every_level_replaces_is_refused() -> None:
    every = [f"objectives.{name}.reward=tree" for name in ("grpo", "cj_grpo", "gspo", "espo")]
    with pytest.raises(ConfigError, match="every level of objectives has a reward of its own"):
        build_cells(load_preset("quick", [*every, "reward=shaped"]))
    assert build_cells(load_preset("quick", [*every, "reward=tree"]))
    with pytest.raises(ConfigError, match="no reward named 'tre'"):
        build_cells(load_preset("quick", ["objectives.espo.reward=tre"]))


def test_a_new_evaluation_never_retrains(tmp_path) -> None:
    first, second = plan(tmp_path), plan(tmp_path, "evaluation.split=test", "evaluation.num_samples=2")
    assert _folders(first, trained=True) == _folders(second, trained=True)
    assert not _folders(first, trained=False) & _folders(second, trained=False)
    assert not {unit.digest for unit in first.units} & {unit.digest for unit in second.units}


def test_the_margin_of_equivalence_decides_no_rollout(tmp_path) -> None:
    first, second = plan(tmp_path), plan(tmp_path, "evaluation.margin=3")
    assert [unit.digest for unit in first.units] == [unit.digest for unit in second.units]


def test_defaults_of_components_are_part_of_a_result_s_key(tmp_path) -> None:
    known = plan(tmp_path)
    written_out = plan(tmp_path, "objectives.grpo.options.prompt_mask_share=0.0")
    assert [unit.digest for unit in known.units] == [unit.digest for unit in written_out.units]


def raise_version(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str = "version") -> None:
    monkeypatch.setattr(owner, name, getattr(owner, name) + 1)


def test_a_raised_version_of_an_objective_owes_its_cells_alone(tmp_path, monkeypatch) -> None:
    known = plan(tmp_path)
    raise_version(monkeypatch, registry.get("objective", "espo"))
    changed = _changed(known, plan(tmp_path))
    assert changed
    assert all("-espo" in unit.cell.id and "unshared" not in unit.cell.id for unit in changed)


@pytest.mark.parametrize(("kind", "name"), [("environment", "forms"), ("reward", "outcome"), ("sampler", "ar")])
def test_a_raised_version_of_what_all_cells_share_owes_them_all(tmp_path, monkeypatch, kind: str, name: str) -> None:
    known = plan(tmp_path)
    raise_version(monkeypatch, registry.get(kind, name))
    touched = {unit.name for unit in known.units if kind != "sampler" or unit.cell.sampler.name == name}
    assert {unit.name for unit in _changed(known, plan(tmp_path))} == touched


def test_a_raised_version_of_the_trainer_owes_no_warm_start_and_one_of_the_evaluation_no_training(
    tmp_path, monkeypatch
) -> None:
    known = plan(tmp_path)
    raise_version(monkeypatch, trainer, "VERSION")
    trained = plan(tmp_path)
    assert {unit.is_warm_start for unit in _changed(known, trained)} == {False}
    raise_version(monkeypatch, engine, "EVALUATION_VERSION")
    evaluated = plan(tmp_path)
    assert len(_changed(trained, evaluated)) == len(evaluated.units)
    assert _folders(trained, trained=True) == _folders(evaluated, trained=True)


@pytest.mark.parametrize(
    ("edited", "is_owed"),
    [("", False), ("    # Half, as in the paper.\n", False), ("    version: ClassVar[int] = 2\n", True)],
)
def test_a_comment_owes_nothing_and_a_raised_version_does(tmp_path, monkeypatch, edited: str, is_owed: bool) -> None:
    source = (
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom dllm_rl.registry import register\n"
        "from dllm_rl.reward import OutcomeReward\n"
        "@register('reward', 'half')\n@dataclass(frozen=True)\nclass Half(OutcomeReward):\n"
        "    def __call__(self, outcome): ...\n"
        "    version: ClassVar[int] = 1\n    share: float = 0.5\n"
    )
    monkeypatch.setitem(registry._REGISTRY, "reward", dict(registry._REGISTRY["reward"]))
    exec(compile(source, "half.py", "exec", dont_inherit=True), {"__name__": "half"})
    known = plan(tmp_path, "reward=half")
    exec(compile(source + edited, "half.py", "exec", dont_inherit=True), {"__name__": "half"})
    assert len(_changed(known, plan(tmp_path, "reward=half"))) == (len(known.units) if is_owed else 0)


def test_options_of_the_environment_count_with_their_defaults(tmp_path) -> None:
    known = plan(tmp_path)
    assert not _changed(known, plan(tmp_path, "environment.options.seed=0"))
    assert len(_changed(known, plan(tmp_path, "environment.options.seed=1"))) == len(known.units)


def test_controls_must_be_what_the_report_calls_them(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"must learn nothing, and its learning rate is 0\.001"):
        plan(tmp_path, "controls.null_control.train.learning_rate=1e-3")
    preset = load_preset("grid16", ["controls.negative_control.objective=espo"])
    with pytest.raises(ConfigError, match="'espo' does not declare that"):
        build_cells(preset)


def test_cells_of_one_name_are_refused() -> None:
    level = "{checkpoint: 'builtin:masked', sampler: {name: threshold}}"
    names = [f"policies={{a: {level}, a-b: {level}}}", "objectives={b-c: {name: grpo}, c: {name: grpo}}"]
    with pytest.raises(ConfigError, match="two cells are called 'a-b-c'"):
        build_cells(load_preset("quick", [*names, "controls=[]"]))


def test_no_unchecked_task_takes_the_place_of_one_left_out() -> None:
    first, second, *_ = Tasks().tasks("train")
    left = task_sets(load_preset("ci", ["training_tasks.max_tasks=2"])).without([first.id])
    assert [task.id for task in left.training] == [second.id]


@pytest.mark.parametrize(
    "override",
    ["train.steps=2", "policies.masked.train.learning_rate=2e-3", "objectives.espo.options.beta=0.1", "reward=shaped"],
)
def test_cells_of_other_settings_have_other_folders(tmp_path, override: str) -> None:
    assert _folders(plan(tmp_path), trained=True) != _folders(plan(tmp_path, override), trained=True)


def test_only_the_cells_that_a_setting_touches_are_run_again(tmp_path) -> None:
    changed = plan(tmp_path, "objectives.espo.options.beta=0.1")
    new = _folders(changed, trained=True) - _folders(plan(tmp_path), trained=True)
    assert new
    assert all("-espo-" in folder.parent.name for folder in new)


def test_other_tasks_or_another_checkpoint_are_other_results(tmp_path) -> None:
    first = plan(tmp_path)
    assert not _folders(first, trained=True) & _folders(plan(tmp_path, tasks=Tasks(" again")), trained=True)
    (tmp_path / "checkpoints" / "masked" / "weights").write_text("other")
    changed = {unit.digest for unit in first.units} - {unit.digest for unit in plan(tmp_path).units}
    assert changed == {unit.digest for unit in first.units if unit.cell.policy == "masked"}


def test_seeds_come_one_after_the_other_and_warm_starts_first(tmp_path) -> None:
    warm, trained = plan(tmp_path).units[:2], plan(tmp_path).units[2:]
    seeds = [unit.seed for unit in trained]
    assert [unit.seed for unit in warm] == [None, None]
    assert seeds == sorted(seeds, key=[0, 1].index)


def _changed(first: GridPlan, second: GridPlan) -> list[Unit]:
    """Units of the second plan that the results of the first do not finish."""
    return [unit for old, unit in zip(first.units, second.units, strict=True) if old.digest != unit.digest]


def _folders(grid: GridPlan, *, trained: bool) -> set[Path]:
    return {unit.folder for unit in grid.units if unit.is_warm_start is not trained}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("notebook.memory=none", "notebook.memory: environment 'forms' takes whole plans"),
        ("train.turn_normaliser=turn_mean", "train.turn_normaliser: environment 'forms' takes whole plans"),
        ("train.step_credit=gigpo", "train.step_credit: environment 'forms' takes whole plans"),
        ("train.horizon=[{steps: 1, max_turns: 2}]", "train.horizon: environment 'forms' takes whole plans"),
        ("notebook.memory=some", "notebook.memory"),
        ("notebook={memory: full, feedback: false}", "Take actions"),
    ],
)
def test_settings_of_episodes_are_refused_for_whole_plans_and_where_they_contradict(
    tmp_path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_cells(preset(tmp_path, override))


def test_the_grammar_of_whole_plans_is_refused_for_episodes(tmp_path) -> None:
    with pytest.raises(ConfigError, match="knows no command of episodes"):
        build_cells(preset(tmp_path, "environment={name: episodes}", "decoding.grammar=evaluation"))


def test_the_notebook_is_part_of_what_a_result_depends_on(tmp_path) -> None:
    """And leaves the keys of whole plans as they were."""
    episodic = ("environment={name: episodes}", "reward=outcome")

    def digests(*overrides: str) -> list[str]:
        return [unit.digest for unit in plan(tmp_path, *episodic, *overrides).units]

    usual = digests()
    assert digests("notebook.memory=full") == usual == digests("train.turn_normaliser=constant")
    for override in ("notebook.memory=none", "notebook.num_observations=2"):
        assert not set(digests(override)) & set(usual)
    assert digests("train.turn_normaliser=turn_mean")[0] == usual[0]
    for override in ("train.turn_normaliser=turn_mean", "train.horizon=[{steps: 1, max_turns: 2}]"):
        assert not set(digests(override)[2:]) & set(usual)


def test_a_stage_of_the_horizon_that_the_environment_ends_first_is_refused(tmp_path) -> None:
    episodic = ("environment={name: episodes, options: {max_turns: 4}}", "reward=outcome")
    build_cells(preset(tmp_path, *episodic, "train.horizon=[{steps: 1, max_turns: 3}]"))
    with pytest.raises(ConfigError, match="ends episodes after 4"):
        build_cells(preset(tmp_path, *episodic, "train.horizon=[{steps: 1, max_turns: 4}]"))
    with pytest.raises(ConfigError, match=r"horizon\.0\.max_turns"):
        build_cells(preset(tmp_path, *episodic, "train.horizon=[{steps: 1, max_turns: 0}]"))


def test_repair_is_part_of_what_a_policys_results_depend_on_and_of_no_other(tmp_path) -> None:
    """And cells without it keep their keys."""
    episodic = ("environment={name: episodes}", "reward=outcome", "policies.masked.facts.line_width=12")

    def digests(*overrides: str) -> dict[str, str]:
        return {unit.name: unit.digest for unit in plan(tmp_path, *episodic, *overrides).units}

    usual, repaired = digests(), digests("policies.masked.repair={}")
    changed = {name for name in usual if usual[name] != repaired[name]}
    assert changed == {name for name in usual if "masked" in name}
    assert digests("policies.masked.repair={confidence: 0.5}")["warm start masked"] != repaired["warm start masked"]
    assert digests("policies.masked.repair=null") == usual


def test_roles_are_part_of_what_a_policys_results_depend_on_and_of_no_other(tmp_path) -> None:
    """Every switch, and which policy a role has of its own."""
    episodic = ("environment={name: episodes}", "reward=outcome")

    def digests(roles: str) -> dict[str, str]:
        return {unit.name: unit.digest for unit in plan(tmp_path, *episodic, f"policies.masked.roles={roles}").units}

    usual, own = digests("null"), "{own: {grounder: {checkpoint: 'builtin:slot', sampler: slots}}}"
    found = [digests(roles) for roles in ("{}", "{reflector: false}", "{grounder: false}", "{summarizer: false}", own)]
    for changed in found:
        assert {name for name in usual if usual[name] != changed[name]} == {name for name in usual if "masked" in name}
    assert len({changed["warm start masked"] for changed in found}) == len(found)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policies.masked.roles={planner: false}"], "a grounder and no planner"),
        (["policies.masked.roles={}", "policies.masked.repair={}"], "roles and repair|free-running"),
        (["policies.masked.roles={}", "train.step_credit=gigpo"], "masked-grpo: roles and step_credit=gigpo"),
        (
            ["policies=[masked]", "controls=[]", "policies.masked.roles={}", "objectives.espo.name=mdpo"],
            "scores unfinished turns",
        ),
        (
            ["policies.masked.roles={own: {grounder: {checkpoint: 'builtin:slot', sampler: ar}}}"],
            "roles.own.grounder has the sampler 'ar' and a policy of the slot family",
        ),
        (
            ["policies.masked.roles={summarizer: false, own: {summarizer: {checkpoint: 'builtin:slot', sampler: ar}}}"],
            "own names summarizer, which is switched off",
        ),
    ],
)
def test_roles_are_refused_where_they_are_not_defined(tmp_path, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_cells(preset(tmp_path, "environment={name: episodes}", "reward=outcome", *overrides))


def test_roles_are_refused_for_whole_plans(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"policies\.masked\.roles: environment 'forms' takes whole plans"):
        build_cells(preset(tmp_path, "policies.masked.roles={}"))


def test_repair_is_refused_where_a_plan_cannot_be_gone_on_with(tmp_path) -> None:
    episodic = ("environment={name: episodes}", "reward=outcome")
    with pytest.raises(ConfigError, match="the autoregressive family cannot go on"):
        build_cells(preset(tmp_path, *episodic, "policies.autoregressive.repair={}"))
    with pytest.raises(ConfigError, match="free-running lines"):
        build_cells(preset(tmp_path, *episodic, "policies.masked.repair={}"))
