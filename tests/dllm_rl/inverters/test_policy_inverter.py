"""A tiny policy of each family learns to write instructions from states, and a reward reads it from its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.inverters import InversionExample, PolicyInverter, inversion_examples, save_inverter, train_inverter
from dllm_rl.inverters.policy import _share, in_lines
from dllm_rl.records.evidence import as_planned
from dllm_rl.records.words import WEIGHTS_FILE
from dllm_rl.reward import scores
from dllm_rl.session import Session
from dllm_rl.testing.reward import PAGE
from dllm_rl.training.warmstart import WarmStartConfig
from tests.tiny_policies import make_tiny_policy

PAIRS = [InversionExample(state=f"Name: {name}", instruction=f"Name {name}") for name in ("Ann", "Bob")]


@pytest.mark.parametrize("family", ["autoregressive", "masked"])
def test_a_family_learns_to_invert(family: str, tmp_path: Path) -> None:
    policy = make_tiny_policy(family, sharpness=1.0)
    config = WarmStartConfig(
        passes=16 * 140, batch_size=16, learning_rate=5e-3, warmup_steps=5, is_mixed_precision=False
    )
    inverter = train_inverter(policy, PAIRS * 8, config, tmp_path / "inverter")
    assert inverter.write([pair.state for pair in PAIRS]) == [pair.instruction for pair in PAIRS]
    assert inverter.write([]) == []
    reward = registry.build(
        "reward",
        "flip",
        {"inverter_options": {"checkpoint": str(tmp_path / "inverter")}, "similarity": "idf", "max_echo": 1.0},
    )
    # The instruction that it writes of an untouched page earns nothing, whatever was done.
    name, other = ("Ann", "Bob") if inverter.write([""]) != ["Name Ann"] else ("Bob", "Ann")
    right, wrong, empty = (
        as_planned(f"Name {name}", PAGE, plan) for plan in (f'fill p1.e1 "{name}"', f'fill p1.e1 "{other}"', "")
    )
    high, low = (score.value for score in scores(reward, [right, wrong]))
    assert high == pytest.approx(1.0) and low < high
    by_likelihood = {"inverter_options": {"checkpoint": str(tmp_path / "inverter")}, "similarity": "pmi"}
    if family == "masked":
        with pytest.raises(ConfigError, match="needs likelihoods, which the inverter 'policy' does not know"):
            registry.build("reward", "flip", by_likelihood)
    else:
        pmi = registry.build("reward", "flip", by_likelihood)
        likely, unlikely, nothing = (score.value for score in scores(pmi, [right, wrong, empty]))
        assert likely > 0.5 > unlikely >= nothing == 0.0
        unreadable = as_planned("Name Ann " * 500, PAGE, 'fill p1.e1 "Ann"')
        found = scores(pmi, [unreadable, right])
        assert "longer than the inverter's canvas" in found[0].fault and found[1].value == likely
    # A value of any length is read as far as it fits.
    long = as_planned(f"Name {name}", PAGE, f'fill p1.e1 "{name} {"x" * 5000}"')
    assert not scores(reward, [long])[0].fault
    assert reward.ingredients()[1] == PolicyInverter(checkpoint=str(tmp_path / "inverter")).ingredients()


def test_an_inverter_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at the last moment leaves no folder that looks finished and lacks the weights of words."""
    policy = make_tiny_policy("masked")
    monkeypatch.setattr(Path, "rename", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_inverter(policy, tmp_path / "inverter", ["Name Ann"])
    assert not (tmp_path / "inverter").exists()
    monkeypatch.undo()
    save_inverter(policy, tmp_path / "inverter", ["Name Ann"])
    assert (tmp_path / "inverter" / WEIGHTS_FILE).is_file()


def test_memory_does_not_key_results(tmp_path: Path) -> None:
    """How many states are read at a time decides no number, in the inverter and in the reward that it is part of."""
    small, large = ({"checkpoint": str(tmp_path), "batch_rows": rows} for rows in (1, 64))
    assert registry.identity("inverter", "policy", small) == registry.identity("inverter", "policy", large)
    rewards = [registry.identity("reward", "flip", {"inverter_options": item}) for item in (small, large)]
    assert rewards[0] == rewards[1] != registry.identity("reward", "flip", {"similarity": "idf"})


def test_what_was_certain_without_a_state_is_not_explained_by_one() -> None:
    assert (_share(1.0, 4.0), _share(0.0, 0.0)) == (0.75, 0.0)


def test_states_and_instructions_come_from_gold_plans() -> None:
    with Session(registry.build("environment", "toy_copy")) as session:
        (task,) = session.tasks("val")[:1]
        (pair,) = inversion_examples(session, [task])
    assert pair.instruction == task.instruction
    assert sorted(pair.state.split("\n")) == sorted(f"{item.label}: {item.wanted[0]}" for item in task.gold)


def test_an_instruction_is_broken_between_words_and_a_long_one_is_refused(tmp_path: Path) -> None:
    policy = make_tiny_policy("masked")
    text = "Name Ann Name Bob Name Ann"
    assert in_lines(policy, text).replace("\n", " ") == text
    with pytest.raises(ConfigError, match="does not fit a canvas"):
        train_inverter(
            policy, [InversionExample(state="Name: Ann", instruction=text * 200)], WarmStartConfig(), tmp_path / "x"
        )
