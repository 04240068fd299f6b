"""A family of a third party is one file: registered, it passes the suites of objectives, samplers and policies."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_rl import registry
from dllm_rl.testing import PropertyError, check_objective, check_sampler
from tests.examples import example
from tests.test_docs import blocks

PAGE = Path(__file__).resolve().parents[3] / "docs" / "adding_a_family.md"


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that the page shows, imported; it is forgotten afterwards."""
    registry.names("policy")
    monkeypatch.setitem(registry._REGISTRY, "policy", dict(registry._REGISTRY["policy"]))
    (code,) = blocks(PAGE, "python")
    exec(compile(code, PAGE.name, "exec", dont_inherit=True), {"__name__": "two_level"})


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("name", ["espo", "cj_grpo", "unigrpo", "mdpo"])
def test_objectives_of_the_family_that_it_derives_from_keep_their_promises(name: str) -> None:
    cls = registry.get("objective", name)
    assert "two_level" in registry.families_of(cls)
    item = example("two_level")
    assert check_objective(cls(), policies=[(item.policy, item.rollouts)])


@pytest.mark.usefixtures("_registered")
def test_its_usual_sampler_keeps_its_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = registry.get("sampler", registry.get("policy", "two_level").usual_sampler)
    assert "two_level" in registry.families_of(cls)
    monkeypatch.setattr(cls, "families", ("two_level",))
    assert ("two_level", "replay_is_exact") in check_sampler(cls)


@pytest.mark.usefixtures("_registered")
def test_the_suite_reads_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    item = example("two_level")
    process = type(item.policy.process)
    levels = process.levels
    monkeypatch.setattr(process, "levels", lambda *given: (levels(*given)[0], 1.2 * levels(*given)[1]))
    with pytest.raises(PropertyError, match="on the two_level family, property 'elbo_views'"):
        check_objective(registry.get("objective", "espo")(), policies=[(item.policy, item.rollouts)])
