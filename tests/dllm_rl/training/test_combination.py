"""What would score draws by other probabilities than theirs is refused before anything is drawn."""

from __future__ import annotations

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.training.config import TrainConfig, refuse_settings, refuse_unreplayable

GRAMMAR = ("low_confidence", {"grammar": True})
GUIDED = ("low_confidence", {"guidance": 1.5})


@pytest.mark.parametrize(
    ("family", "sampler", "objective", "reason"),
    [
        ("masked", GRAMMAR, "espo", "scores views of the unconstrained policy"),
        ("masked", GRAMMAR, "mdpo", "scores views of the unconstrained policy"),
        ("block", GRAMMAR, "tracerl", "merges steps"),
        ("masked", GUIDED, "cj_grpo", "replays recorded draws"),
        ("masked", GUIDED, "tracerl", "replays recorded draws"),
        ("masked", GRAMMAR, "tracerl", None),
        ("block", GRAMMAR, "cj_grpo", None),
        ("masked", GUIDED, "espo", None),
        ("autoregressive", ("ar", {"grammar": True}), "grpo", None),
    ],
)
def test_combinations(family: str, sampler: tuple[str, dict], objective: str, reason: str | None) -> None:
    given = (registry.get("policy", family), registry.build("sampler", sampler[0], sampler[1]))
    method = registry.build("objective", objective, {})
    if reason is None:
        refuse_unreplayable(*given, method)
        return
    with pytest.raises(ConfigError, match=reason):
        refuse_unreplayable(*given, method)


@pytest.mark.parametrize(
    ("objective", "options", "settings", "reason"),
    [
        ("grpo", {}, {"shuffles_rewards": True, "step_credit": "gigpo"}, "would stay true"),
        ("grpo", {}, {"shuffles_rewards": True, "step_credit": "rule_tree"}, "would stay true"),
        ("grpo", {}, {"shuffles_rewards": True}, None),
        ("grpo", {}, {"step_credit": "rule_tree"}, None),
        ("mdpo", {"beta": 0.0}, {"resample_rounds": 1}, "rewards of single steps"),
        ("egspo_sa", {}, {"resample_rounds": 1}, "rewards of single steps"),
        ("dapo", {"advantage": "shrunk"}, {"resample_rounds": 1}, "another advantage than shrunk"),
        ("dapo", {}, {"resample_rounds": 1}, None),
        ("dapo", {}, {"resample_rounds": 1, "step_credit": "gigpo"}, "their turns have a gradient"),
        ("dapo", {}, {"resample_rounds": 1, "step_credit": "rule_tree"}, "their turns have a gradient"),
        ("kl_cov", {}, {"inner_steps": 1}, "at least 2 inner steps"),
        ("kl_cov", {}, {"inner_steps": 2}, None),
        ("rloo", {}, {"inner_steps": 2}, "at most 1 inner steps"),
    ],
)
def test_settings(objective: str, options: dict, settings: dict, reason: str | None) -> None:
    given = (TrainConfig(**settings), registry.build("objective", objective, options))
    if reason is None:
        refuse_settings(*given)
        return
    with pytest.raises(ConfigError, match=reason):
        refuse_settings(*given)
