"""What would score draws by other probabilities than theirs is refused before anything is drawn."""

from __future__ import annotations

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.training.config import refuse_unreplayable

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
