"""Embed-RL's reward: gate, margin and both; negatives that change one wish; towers that learn what words say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.records.evidence import as_planned
from dllm_rl.reward import scores
from dllm_rl.testing import check_reward
from dllm_rl.testing.reward import PAGE, RIGHT, SEND, WRONG
from experiments.run.contrast import ContrastConfig, train_towers
from harness.rewards.embedder import Embedder
from harness.rewards.towers import (
    NUM_BUCKETS,
    NUM_DIMENSIONS,
    Tower,
    Towers,
    Wishes,
    clauses_of,
    counterfactuals,
    read_towers,
    wishes_of,
    write_towers,
)

NAMES, TOWNS = ("Anna", "Karl", "Mia", "Omar", "Ida", "Leo"), ("Oslo", "Rome", "Lima", "Bern", "Cork", "Graz")


def pair_of(name: str, town: str) -> tuple[str, str]:
    """An instruction with a fact that nobody asked for, and the state that carries it out."""
    return f"The name is {name}. My friend came by. Use {town} as the town.", f"Name: {name}\nTown: {town}"


PAIRS = [pair_of(name, town) for name in NAMES for town in TOWNS]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embedder") / "embedder.safetensors"
    write_towers(path, train_towers(PAIRS, ContrastConfig(epochs=10, batch_size=12), version=Embedder.version))
    return path


def values(file: Path, instruction: str, *plans: tuple[str, ...], **options) -> list[float]:
    reward = registry.build("reward", "embedder", {"file": str(file), **options})
    found = scores(reward, [as_planned(instruction, PAGE, "\n".join(lines)) for lines in plans])
    assert [score.claim for score in found] == [score.value for score in found]
    return [score.value for score in found]


def test_an_embedder_keeps_every_promise(trained: Path) -> None:
    for pays in ("both", "gate", "margin"):
        assert check_reward(registry.build("reward", "embedder", {"file": str(trained), "pays": pays}))


def test_what_was_asked_for_is_told_from_wrong_and_swapped_values_that_training_never_saw(
    trained: Path,
) -> None:
    asked, _ = pair_of("Zoe", "Quito")
    right = ('fill p1.e1 "Zoe"', 'select p1.e2 "Quito"', SEND)
    one_wrong, swapped = (right[0], 'select p1.e2 "Rome"'), ('fill p1.e1 "Quito"', 'select p1.e2 "Zoe"')
    for pays in ("both", "margin"):
        best, *others = values(trained, asked, right, one_wrong, swapped, WRONG, (), pays=pays)
        assert best > 0.05 and best > 1.2 * max(others), (pays, best, others)
        assert others[-1] == 0.0, "an untouched page earns nothing"
    assert values(trained, asked, right, one_wrong, WRONG, pays="gate") == [1.0, 0.0, 0.0]


def test_both_is_gate_times_margin_and_near_negatives_weigh_most(trained: Path) -> None:
    asked, _ = pair_of("Anna", "Oslo")
    plans = (RIGHT, WRONG, (RIGHT[0], 'select p1.e2 "Rome"'))
    both, gate, margin = (np.array(values(trained, asked, *plans, pays=pays)) for pays in ("both", "gate", "margin"))
    assert both == pytest.approx(gate * margin) and margin[0] > 0
    (mean,) = values(trained, asked, RIGHT, negative_temperature=1e6)
    assert mean > 2 * both[0], "the margin over all negatives alike is wider than that over the near ones"


def test_what_is_no_action_or_an_echo_earns_nothing(trained: Path) -> None:
    asked, _ = pair_of("Anna", "Oslo")
    assert values(trained, asked, ("no idea", *RIGHT), (f'fill p1.e1 "{asked}"', RIGHT[1])) == [0.0, 0.0]


def test_a_counterfactual_changes_one_wish_and_no_fact() -> None:
    wishes = [wish for one, two in PAIRS for wish in wishes_of(clauses_of(one), clauses_of(two))]
    assert not [wish for wish in wishes if "friend" in wish]
    asked = clauses_of(PAIRS[0][0])
    found = counterfactuals(asked, Wishes(clauses=tuple(sorted(set(wishes)))))
    assert len(found) == 6
    changed = [[at for at in range(3) if other[at] != asked[at]] for other in found]
    assert changed == [[0]] * 3 + [[2]] * 3
    assert {other[0][:2] for other in found[:3]} == {("name", "is")}


def test_training_widens_the_margin_on_values_that_it_never_saw(tmp_path: Path, trained: Path) -> None:
    write_towers(
        tmp_path / "raw", train_towers(PAIRS, ContrastConfig(epochs=0, batch_size=12), version=Embedder.version)
    )
    asked, _ = pair_of("Zoe", "Quito")
    right = ('fill p1.e1 "Zoe"', 'select p1.e2 "Quito"')
    ((before,), (after,)) = (values(path, asked, right, pays="margin") for path in (tmp_path / "raw", trained))
    assert after > 1.2 * before


def test_the_numbers_of_a_known_embedder(tmp_path: Path) -> None:
    """Raise the version where they change: results are keyed by it."""
    tower = Tower(weights=np.ones(NUM_BUCKETS, np.float32), map=np.eye(NUM_DIMENSIONS, dtype=np.float32))
    others = tuple(clauses_of(one) for one, _ in PAIRS[:3])
    wishes = Wishes(clauses=(("name", "is", "karl"), ("use", "rome", "as", "town")))
    write_towers(
        tmp_path / "e", Towers(instruction=tower, state=tower, others=others, wishes=wishes, version=Embedder.version)
    )
    known = read_towers(tmp_path / "e", version=Embedder.version)
    assert (known.others, known.wishes) == (others, wishes)
    found = values(tmp_path / "e", PAIRS[7][0], ('fill p1.e1 "Karl"', 'select p1.e2 "Rome"'), RIGHT, pays="margin")
    assert found == pytest.approx([0.14677, 0.0], abs=1e-4)


def test_a_file_that_is_no_embedder_and_too_few_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no embedder at"):
        Embedder(file=str(tmp_path / "none"))
    (tmp_path / "torn").write_bytes(b"\x10\x00")
    with pytest.raises(ConfigError, match="is not an embedder"):
        Embedder(file=str(tmp_path / "torn"))
    with pytest.raises(ConfigError, match="5 pairs of instruction and state; expected at least 32"):
        train_towers(PAIRS[:5], ContrastConfig(), version=Embedder.version)
