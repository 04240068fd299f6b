"""`decoding.grammar`, and the template of a new rule."""

from __future__ import annotations

import pytest

from dllm_rl.errors import ConfigError
from experiments.design.grid import build_cells
from experiments.design.presets import load_preset


def cells(*overrides, preset="quick"):
    return {cell.id: cell for cell in build_cells(load_preset(preset, ["controls=[]", *overrides]))}


def test_grammar_in_evaluation_leaves_training_as_it_was():
    before, after = cells(), cells("decoding.grammar=evaluation")
    for name, cell in after.items():
        assert cell.sampler == before[name].sampler
        assert cell.evaluation_sampler is not None and cell.evaluation_sampler.options["grammar"] is True


def test_grammar_in_training_is_for_objectives_that_replay():
    chosen = cells("decoding.grammar=always", "policies=[masked]", "objectives=[cj_grpo]")
    assert all(cell.sampler.options["grammar"] is True for cell in chosen.values())
    with pytest.raises(ConfigError, match="'espo' scores views of the unconstrained policy"):
        cells("decoding.grammar=always", "policies=[masked]", "objectives=[espo]")
    assert cells("decoding.grammar=always", "policies=[autoregressive]")


@pytest.mark.parametrize("shrink", [2, 8, 64])
def test_grammar_in_training_is_not_for_views_that_merge_steps_of_several_blocks(shrink):
    level = f"objectives.tracerl={{name: tracerl, options: {{shrink: {shrink}}}}}"
    with pytest.raises(ConfigError, match="a view of objective 'tracerl' merges steps"):
        cells("decoding.grammar=always", level, "objectives=[tracerl]", preset="block")
    assert cells("decoding.grammar=always", "policies=[masked]", level, "objectives=[tracerl]")
    assert cells("decoding.grammar=always", "objectives=[cj_grpo]", preset="block")


def test_rules_that_mask_again_do_not_train_what_replays():
    policy = "policies.masked.sampler={name: rcr}"
    with pytest.raises(ConfigError, match="'rcr' remasks tokens, and objective 'cj_grpo' replays"):
        cells(policy, "policies=[masked]", "objectives=[cj_grpo]")
    assert cells(policy, "policies=[masked]", "objectives=[espo]")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("{cache: dual, block_length: 25}", r"draws from stale keys and values \(cache='dual'\)"),
        ("{guidance: 1.5}", r"draws from guided distributions \(guidance=1.5\)"),
    ],
)
def test_laws_that_a_replay_does_not_give_again_do_not_train_what_replays(options, reason):
    policy = f"policies.masked.sampler={{name: threshold, options: {options}}}"
    with pytest.raises(ConfigError, match=f"'threshold' {reason}, and objective 'cj_grpo' replays"):
        cells(policy, "policies=[masked]", "objectives=[cj_grpo]")
    assert cells(policy, "policies=[masked]", "objectives=[espo]")
    evaluated = policy.replace("sampler=", "evaluation_sampler=")
    assert cells(evaluated, "policies=[masked]", "objectives=[cj_grpo]")
