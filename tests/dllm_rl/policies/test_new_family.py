"""A family of a third party is one file: registered, it passes the suites of objectives, samplers and policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from dllm_rl import registry
from dllm_rl.policies.masked import MaskedPolicy, MaskedProcess
from dllm_rl.testing import PropertyError, check_objective, check_sampler
from tests.examples import example

LOW_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLevelProcess(MaskedProcess):
    """Absorbing masks whose noise level lies in the lower half with probability .8."""

    family: ClassVar[str] = "two_level"

    def levels(
        self, num_rows: int, num_draws: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "k b"], Float[Tensor, "k b"]]:
        within = torch.rand(2, num_draws, num_rows, generator=generator)
        is_low = within[0] < LOW_SHARE
        level = torch.where(is_low, within[1] / 2, 0.5 + within[1] / 2)
        return level, torch.where(is_low, 2 * LOW_SHARE, 2 * (1 - LOW_SHARE))


class TwoLevelPolicy(MaskedPolicy):
    """The masked family under another noise schedule."""

    family: ClassVar[str] = "two_level"

    def make_process(self) -> TwoLevelProcess:
        return TwoLevelProcess(**self.masked_facts)


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names("policy")
    monkeypatch.setitem(registry._REGISTRY, "policy", dict(registry._REGISTRY["policy"]))
    registry.register("policy", "two_level")(TwoLevelPolicy)


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("name", ["espo", "cj_grpo", "unigrpo", "mdpo"])
def test_objectives_of_the_family_that_it_derives_from_keep_their_promises(name: str) -> None:
    cls = registry.get("objective", name)
    assert "two_level" in registry.families_of(cls)
    item = example("two_level")
    assert check_objective(cls(), policies=[(item.policy, item.rollouts)])


@pytest.mark.usefixtures("_registered")
def test_its_usual_sampler_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = registry.get("sampler", TwoLevelPolicy.usual_sampler)
    assert "two_level" in registry.families_of(cls)
    monkeypatch.setattr(cls, "families", ("two_level",))
    assert ("two_level", "replay_is_exact") in check_sampler(cls)


@pytest.mark.usefixtures("_registered")
def test_the_suite_reads_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = TwoLevelProcess.levels
    monkeypatch.setattr(TwoLevelProcess, "levels", lambda *given: (levels(*given)[0], 1.2 * levels(*given)[1]))
    item = example("two_level")
    with pytest.raises(PropertyError, match="on the two_level family, property 'elbo_views'"):
        check_objective(registry.get("objective", "espo")(), policies=[(item.policy, item.rollouts)])
