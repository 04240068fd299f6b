"""Whatever a user gives wrongly, of every kind of setting, is one message and exit code 2, before anything is run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dllm_rl.errors import ConfigError
from experiments.cli.judge import _judge
from experiments.design.presets import preset_names
from tests.experiments.cli.test_cli import said

TOY, FORMS = ("grid", "toy_sort", "--dry-run"), ("grid", "quick", "--dry-run")
SKILL, EPISODES = ("grid", "grid16_skill", "--dry-run"), ("grid", "episodes_quick", "--dry-run")
AR = "policies.autoregressive.sampler={name: ar, options: {engine: {name: %s}}}"
ELSEWHERE = "{name: openenv, options: {url: 'http://127.0.0.1:1'}}"
PARTLY_EARNED = "{name: combined, options: {base: {reward: earned}, gates: [{reward: well_formed}]}}"
ORACLE, MASKED, WARM = ("eval", "oracle"), ("eval", "builtin:masked"), ("warmstart", "masked", "--set")
PLAYED = ("eval", "builtin:masked", "--environment", "episodes")
ERRANDS = ("warmstart", "masked_episodes", "--recipe", "episodes", "--set")
GYM = "environment={name: gymnasium, options: {id: Nope-v0, counts: {train: -1}}}"
BUILT_IN = "policies.both_ways.checkpoint=builtin:autoregressive_finish"
HALF_QUADRATURE = "objectives.espo.options={levels: quadrature, antithetic: false}"

REFUSED = {
    "objective": [
        (TOY, "objectives.espo.name=esp", "Did you mean 'espo'"),
        (TOY, "objectives.espo.options.num_draw=1", "Did you mean 'num_draws'"),
        (TOY, "objectives.espo.options.num_draws=x", "it should be a valid integer"),
        (TOY, "objectives.espo.options.num_draws=0", "greater than or equal to 1"),
        (TOY, "objectives.espo.options.antithetic=1", "it should be a valid boolean"),
        (TOY, "objectives.espo.options=3", "objectives.espo.options"),
        (TOY, HALF_QUADRATURE, "which levels='quadrature' do not read"),
        (TOY, "objectives={tracerl: {name: tracerl, options: {num_steps: 4}}}", "it should be 8"),
    ],
    "sampler": [
        (TOY, "policies.masked.sampler=low_confident", "Did you mean 'low_confidence'"),
        (TOY, "policies.masked.sampler.options.num_step=1", "Did you mean 'num_steps'"),
        (TOY, "policies.masked.sampler.options.num_steps=x", "it should be a valid integer"),
        (TOY, "policies.masked.sampler.options.num_steps=0", "an integer of at least 1"),
        (TOY, "policies.masked.evaluation_sampler=slots", "is not defined for the family 'masked'"),
        (TOY, "policies.masked.sampler.options.temperature=1", "set train.temperature"),
        (TOY, "policies.masked.sampler={name: smc, options: {guide: {reward: outcome}}}", "what the server received"),
        (TOY, "policies.masked.sampler={name: smc, options: {guide: {reward: flp}}}", "Did you mean 'flip'"),
        (TOY, AR % "vlm", "expected tags: 'transformers', 'vllm'"),
        (TOY, AR % "vllm, max_rows: 0", "it should be greater than or equal to 1"),
        (TOY, AR % "vllm, max_row: 8", "Unexpected keyword argument"),
        (TOY, AR % "transformers", "'toy:toy_sort' is the built-in model, which engines do not know"),
        (TOY, "policies.masked.sampler.options.engine={name: vllm}", "no option of sampler 'low_confidence' named"),
        (EPISODES, "policies.masked.sampler.options.grammar=true", "sampler.options.grammar was given: the grammar"),
        (EPISODES, "policies.masked.evaluation_sampler={name: slots, options: {grammar: true}}", "knows no command of"),
    ],
    "repair": [
        (TOY, "policies.masked.repair={}", "policies.masked.repair: environment 'toy_sort' takes whole plans"),
        (FORMS, "policies.masked.repair={confidence: 0.5}", "Leave it out, or take the environment episodes"),
        (FORMS, "policies.masked.repair={confidence: 1.0}", "less than 1"),
        (FORMS, "policies.masked.repair={confidnce: 0.5}", "Did you mean 'confidence'"),
        (EPISODES, "policies.autoregressive.repair={}", "the autoregressive family cannot go on"),
    ],
    "environment": [
        (TOY, "environment=toy_srt", "Did you mean 'toy_sort'"),
        (TOY, "environment.options.x=1", "no option of environment 'toy_sort' named 'x'"),
        (FORMS, "environment.options.world=riche", "it should be 'basic' or 'rich'"),
        (FORMS, "environment.options.counts.trian=3", "Did you mean 'train'"),
        (FORMS, "environment.options.counts.train=x", "it should be a valid integer"),
        (FORMS, "environment.options.counts.train=-1", "expected a number of tasks"),
        (FORMS, "environment.options.dials=[9]", "expected some of 0, 1, 2"),
        (FORMS, "environment.options.dials=[]", "expected some of 0, 1, 2"),
        (FORMS, "environment.options.kinds=[]", "kinds is empty"),
        (FORMS, "environment.options.sites_per_kind=0", "sites_per_kind is 0; expected 1 to 100000"),
        (FORMS, "environment.options={world: rich, difficulties: []}", "expected some of 1, 2, 3"),
        (FORMS, "environment.options={world: rich, size: full}", "a form of the rich world"),
        (FORMS, "environment.options.difficulties=[2]", "has no difficulties"),
        (FORMS, "environment.options={design: nwer}", "it should be 'older' or 'newer'"),
        (FORMS, "environment.options={design: newer, obstacles: [consnt]}", "it should be 'second_button'"),
        (SKILL, "environment.options={obstacles: [consent]}", "the design 'older' has no obstacles"),
        (FORMS, GYM, "expected a number of tasks"),
    ],
    "reward": [
        (TOY, "reward=shape", "Did you mean 'shaped'"),
        (TOY, "reward.options.nope=1", "no option of reward 'shaped' named 'nope'"),
        (TOY, "reward.options.submission=x", "it should be a valid number"),
        (TOY, "reward.options.submission=-5", "that sum to 1"),
        (TOY, "reward=earned", "environment 'toy_sort' pays nothing by itself"),
        (TOY, f"reward={PARTLY_EARNED}", "environment 'toy_sort' pays nothing by itself"),
    ],
    "facts": [
        (TOY, "policies.masked.facts.family=maskd", "takes facts"),
        (TOY, "policies.masked.facts.canvas_length=9", "takes facts"),
        (TOY, "policies.masked.checkpoint=toy:toy_srt", "Did you mean 'toy_sort'"),
        (FORMS, "policies.masked.facts.family=maskd", "Did you mean 'masked'"),
        (FORMS, "policies.masked.facts.canvas_lenght=9", "Did you mean 'canvas_length'"),
        (FORMS, "policies.masked.facts.canvas_length=x", "it should be a valid integer"),
        (FORMS, "policies.masked.facts.canvas_length=0", "greater than or equal to 1"),
        (FORMS, "policies.masked.facts.is_shifted=7", "it should be a valid boolean"),
        (FORMS, "policies.masked.facts.slot_size=4", "the masked family does not read it"),
        (FORMS, "policies.slot.facts.block_size=4", "the slot family does not read it"),
    ],
    "train": [
        (TOY, "train.stps=1", "Did you mean 'steps'"),
        (TOY, "train.steps=x", "valid integer"),
        (TOY, "train.group_size=1", "greater than or equal to 2"),
        (TOY, "train.learning_rate=.inf", "finite number"),
        (TOY, "train.importance_sampling_cap=2", "it corrects draws of an engine, which the sampler 'low_confidence'"),
        (TOY, "train.importance_sampling_cap=0.5", "greater than or equal to 1"),
        (TOY, "train.seed=3", "Write seeds=[3]"),
        (FORMS, "train.learning_rate=abc", "every level of policies sets its own learning_rate"),
        (TOY, "train={inner_steps: 1, target_kl: 0.1}", "Set inner_steps to 2 or more"),
        (("train", "toy_sort", "masked", "rloo"), "train.inner_steps=2", "allows at most 1 inner step"),
    ],
    "names": [
        (TOY, "policies=[[masked]]", "['masked'] was given for an entry of policies"),
        (TOY, "policies=[{masked: 1}]", "expected its name. Known:"),
        (FORMS, "controls=[[a]]", "was given for an entry of controls"),
        (
            TOY,
            "policies.GSAI-ML/LLaDA={checkpoint: x, sampler: slots}",
            "'GSAI-ML/LLaDA' cannot name a folder",
        ),
        (TOY, "objectives.my:own.name=espo", "'my:own' cannot name a folder of the run"),
        (TOY, "name=2026/first", "'2026/first' cannot name a folder of the run"),
        (TOY, "name=2026-99-99", "month must be in 1..12. Quote it."),
        (TOY, "policies.masked.device=cuda", "device would have no effect. Leave it out"),
    ],
    "evaluation": [
        (TOY, "evaluation.splt=val", "Did you mean 'split'"),
        (TOY, "evaluation.split=vall", "Did you mean 'val'"),
        (TOY, "evaluation.num_samples=0", "greater than or equal to 1"),
        (TOY, "evaluation.seed=-1", "greater than or equal to 0"),
        (TOY, "evaluation.margin=x", "valid number"),
        (TOY, "evaluation.executor=fast", "environment 'toy_sort' has no such modes"),
        (TOY, "evaluation.isolation=page", "environment 'toy_sort' has no such modes"),
        (FORMS, "evaluation.executor=fats", "Did you mean 'fast'"),
        (FORMS, "evaluation.isolation=pge", "Did you mean 'page'"),
        (MASKED, "--split=vall", "Did you mean 'val'"),
        (MASKED, "--temperature=0", "--temperature"),
        (MASKED, "--sampler={name: low_confidence, options: {num_steps: x}}", "it should be a valid integer"),
        (MASKED, "--environment={name: forms, options: {world: riche}}", "it should be 'basic' or 'rich'"),
        (MASKED, "--executor=fast", "No such option"),
        (ORACLE, "--sampler=slots", "the oracle draws nothing"),
        (ORACLE, "--num-samples=3", "the oracle draws nothing"),
        (ORACLE, f"--environment={ELSEWHERE}", "environment 'openenv' has no oracle"),
        (("episode",), f"--environment={ELSEWHERE}", "environment 'openenv' has no oracle"),
        (ORACLE, "--repair={}", "an oracle reads the page alone"),
        (MASKED, "--repair={}", "--repair was given: FormEnvironment runs a whole plan at once"),
        (MASKED, "--notebook={memory: none}", "--notebook was given: FormEnvironment runs a whole plan at once"),
        (PLAYED, "--notebook={memry: none}", "Did you mean 'memory'"),
        (PLAYED, "--notebook={memory: full, feedback: false}", "Take actions"),
        (PLAYED, "--notebook={", "--notebook {: not YAML"),
        (PLAYED, "--repair={confidence: 2}", "less than 1"),
        (PLAYED, "--sampler={name: low_confidence, options: {grammar: true}}", "knows no command of episodes"),
        (("episode", "builtin:masked"), "--sampler={name: slots, options: {grammar: true}}", "knows no command of"),
    ],
    "out": [
        (MASKED, "--out=.", "'.' is a folder. Give --out a file, such as 'rollouts.parquet'"),
        (MASKED, "--out=/dev/null/rows.parquet", "nothing can be written to '/dev/null'"),
        (("film", "builtin:masked"), "--out=.", "such as 'film.html'"),
        (("episode",), "--out=.", "such as 'episode.html'"),
        (("episode", "--environment", "toy_copy"), "--out=page.html", "takes whole plans"),
        (("judge", "damage"), "--out=.", "such as 'evidence.jsonl'"),
        (("diagnose", "nothing"), "--out=.", "such as 'diagnosis.html'"),
        (("site", "try", "."), "--set=fixtures={", "--set fixtures={: not YAML, line 1"),
    ],
    "decoding": [
        (TOY, "decoding.gramar=never", "Did you mean 'grammar'"),
        (TOY, "decoding.grammar=sometimes", "'never', 'evaluation' or 'always'"),
        (TOY, "decoding=3", "decoding"),
    ],
    "warmstart": [
        (WARM, "facts.canvas_lenght=9", "Did you mean 'canvas_length'"),
        (WARM, "facts.canvas_length=x", "it should be a valid integer"),
        (WARM, "model.hidden=3", "Did you mean 'hidden_size'"),
        (WARM, "families.masked.train.passe=3", "Did you mean 'passes'"),
        (WARM, "families.masked.train.passes=x", "valid integer"),
        (WARM, "families.masked.train.batch_size=0", "greater than or equal to 1"),
        (WARM, "families.masked.init=nope", "nope"),
        (ERRANDS, "demonstrations.errands.kinds=[]", "kinds is empty"),
        (ERRANDS, "demonstrations.errands.kinds=[wizzard]", "Did you mean 'wizard'"),
        (ERRANDS, "demonstrations.errands.kinds=[wizard, long_list]", "kinds names long_list, whose pages are longer"),
        (ERRANDS, "demonstrations.errands.difficulties=[]", "difficulties is []; expected some of 1, 2, 3"),
        (ERRANDS, "demonstrations.errands.difficulties=[4]", "difficulties is [4]; expected some of 1, 2, 3"),
        (WARM, "demonstrations.count=0", "greater than or equal to 1"),
        (WARM, "demonstrations.finish_share=0.5", "finish_share has no effect"),
        (WARM, "families.masked.init=builtin:maskd", "Did you mean 'masked'"),
    ],
}
CASES = [pytest.param(*case, id=f"{kind}: {case[1]}") for kind, cases in REFUSED.items() for case in cases]


@pytest.mark.parametrize(("command", "setting", "message"), CASES)
def test_what_is_wrong_is_refused_before_anything_runs(
    command: tuple[str, ...], setting: str, message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, errors = said((*command, setting), monkeypatch, capsys)
    assert code == 2, errors
    assert message in errors.replace("\n", " ")
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("*.*")), "something was written"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"policy": "masked"}', "is not a JSON object"),
        ('{"policy": {"family": "masked", "canvas_length": "long"}}', "it should be a valid integer"),
        ('{"policy": {"family": ["masked"]}}', "no policy named"),
    ],
)
def test_facts_of_a_checkpoint_are_checked(text: str, message: str, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "config.json").write_text(text)
    for command in ((*FORMS, f"policies.masked.checkpoint={tmp_path}"), ("eval", str(tmp_path))):
        code, _, errors = said(command, monkeypatch, capsys)
        assert (code, message in errors) == (2, True), (command, errors)


def test_a_start_that_was_not_made_is_named_with_the_command_that_makes_it(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for command, way in (
        (("grid", "over_coaching"), "share_05 --recipe over_coaching --out runs/over_coaching_starts"),
        (("grid", "rewards"), "warmstart autoregressive_both_ways --recipe inverter --out runs/rewards_starts"),
        (
            ("grid", "rewards", BUILT_IN, "--only", "*-flip_twin"),
            "inverter --recipe inverter --out runs/rewards_starts",
        ),
        (("grid", "rewards", BUILT_IN, "--only", "*-embedder"), "judge embedder --out runs/rewards_starts/embedder"),
        (("grid", "episodes_roles"), "all_roles --recipe episodes_roles --out runs/episodes_roles_starts"),
        (
            ("grid", "over_coaching_turns"),
            "turns_500 --recipe over_coaching_turns --out runs/over_coaching_turns_starts",
        ),
    ):
        code, _, errors = said(command, monkeypatch, capsys)
        assert code == 2 and way in " ".join(errors.split()), errors
        assert not list(tmp_path.rglob("*.*")), "something was written"


@pytest.mark.parametrize("preset", preset_names())
def test_shipped_presets_are_accepted(preset: str, tmp_path: Path, monkeypatch, capsys) -> None:
    assert said(("grid", preset, "--dry-run", "--out", str(tmp_path)), monkeypatch, capsys)[0] == 0


def test_facts_that_a_family_does_not_read_may_stand_in_its_checkpoint() -> None:
    from dllm_rl.policies.checkpoints import CHECKPOINTS
    from dllm_rl.policies.loading import load_policy

    stored = json.loads((CHECKPOINTS / "masked" / "config.json").read_text())["policy"]
    assert "slot_size" in stored
    assert load_policy("builtin:masked").facts.slot_size == stored["slot_size"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"base: mine.yaml\n", "is a base of itself (mine.yaml -> mine.yaml). Take another base."),
        (b"description: caf\xe9\n", "cannot be read as text in UTF-8"),
        (b"[1]", "is a list; expected a mapping"),
        (b"{", "not YAML, line 1"),
    ],
)
def test_a_file_that_is_no_preset_recipe_or_judge_is_one_message(text, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_bytes(text)
    commands = [("grid", "mine.yaml", "--dry-run"), *([] if b"base" in text else [("warmstart", "mine.yaml")])]
    for command in commands:
        code, _, errors = said(command, monkeypatch, capsys)
        assert (code, message in " ".join(errors.split())) == (2, True), errors
    if b"base" not in text:
        with pytest.raises(ConfigError, match=message):
            _judge("mine.yaml")


@pytest.mark.parametrize(
    ("preset", "setting", "message"),
    [
        (
            "quick",
            "policies.masked.device=cuda",
            "policy 'masked': device=cuda was given; this machine has 0 of that kind",
        ),
        ("quick", "policies.masked.lora={rank: 4}", "policy 'masked': an adapter needs peft, which is not installed"),
        (
            "quick",
            "policies.masked.optimiser=adamw_8bit",
            "'masked': optimiser=adamw_8bit needs the package bitsandbytes",
        ),
        (
            "episodes_quick",
            "policies.masked.roles={own: {reflector: {checkpoint: 'builtin:masked', sampler: random, device: cuda}}}",
            "policy 'masked.roles.own.reflector': device=cuda was given; this machine has 0 of that kind",
        ),
        (
            "episodes_quick",
            "policies.masked.roles={own: {reflector: {checkpoint: ./nowhere, sampler: random}}}",
            "checkpoint './nowhere' was given, and this folder does not exist",
        ),
    ],
)
def test_what_this_machine_lacks_is_refused_before_anything_runs(
    preset, setting, message, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("dllm_rl.policies.adapters.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    # Whatever gets as far as the tasks has begun.
    monkeypatch.setattr("experiments.cli.grid.checked_tasks", None)
    code, _, errors = said(("grid", preset, setting), monkeypatch, capsys)
    assert (code, message in " ".join(errors.split())) == (2, True), errors
    assert not list(tmp_path.iterdir()), "something was written"
