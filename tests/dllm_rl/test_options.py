"""Options of every kind of component are checked by one builder: wrong ones are one message, right ones arrive."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import ClassVar

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from dllm_rl.options import added, fixed, keyed, unkeyed

WRONG = [
    ("sampler", "klass", {"history": "two"}, "history='two' was given; it should be a valid integer"),
    ("sampler", "klass", {"history": True}, "history=True was given; it should be a valid integer"),
    ("sampler", "threshold", {"threshold": "abc"}, "threshold='abc' was given; it should be a valid number"),
    ("sampler", "threshold", {"threshold": 1.5}, "sampler 'threshold': threshold=1.5: expected a probability strictly"),
    ("sampler", "remdm", {"schedule": "nonsense"}, "it should be 'cap', 'rescale' or 'confidence'"),
    ("sampler", "annealed", {"order_temperature": "hot"}, "order_temperature='hot' was given"),
    ("sampler", "slots", {"slot_threshold": "hi"}, "slot_threshold='hi' was given"),
    ("sampler", "entropy_bound", {"gamma": "x"}, "gamma='x' was given; .* Leave it out for its default, 0.1"),
    ("sampler", "entropy_bound", {"gamma": float("nan")}, "gamma=nan was given; .* NaN is none"),
    ("sampler", "klas", {}, "no sampler named 'klas'. Did you mean 'klass'"),
    ("sampler", "klass", {"histori": 2}, "no option of sampler 'klass' named 'histori'. Did you mean 'history'"),
    ("objective", "espo", {"antithetic": "no"}, "antithetic='no' was given; it should be a valid boolean"),
    ("objective", "grpo", {"clip_low": 1.5}, "clip_low=1.5 was given; it should be less than 1"),
    ("objective", "cj_grpo", {"num_steps": "2"}, "num_steps='2' was given; it should be a valid integer"),
    ("environment", "forms", {"size": "huge"}, "size='huge' was given; it should be 'small' or 'full'"),
    ("environment", "forms", {"shares_identical": "no"}, "shares_identical='no' was given; it should be a .* boolean"),
    ("environment", "forms", {"concurrency": "x"}, "concurrency='x' was given"),
    ("environment", "forms", {"concurrency": 0}, "environment 'forms': concurrency is 0"),
    ("environment", "forms", {"seed": "a"}, "seed='a' was given"),
    ("environment", "forms", {"dials": "0"}, "dials='0' was given; it should be a valid array"),
    ("environment", "forms", {"isolatoin": "page"}, "Did you mean 'isolation'"),
    ("environment", "toy_sort", {"size": "small"}, "no option of environment 'toy_sort' named 'size'"),
    ("reward", "shaped", {"submission": "a"}, "submission='a' was given; it should be a valid number"),
    ("reward", "shaped", {"submission": 0.9}, "reward 'shaped': reward weights 0.9, 0.4, 0.2"),
    ("reward", "shapd", {}, "no reward named 'shapd'. Did you mean 'shaped'"),
    ("reward", "outcome", {"submission": 1}, "no option of reward 'outcome' named 'submission'"),
]


@pytest.mark.parametrize(("kind", "name", "options", "message"), WRONG)
def test_a_wrong_option_is_one_message(kind: str, name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.build(kind, name, options)


def test_plain_data_becomes_what_the_types_say() -> None:
    settings = registry.build("environment", "forms", {"dials": [0], "kinds": None, "counts": {"val": 2}}).settings
    assert (settings.dials, settings.kinds, settings.count("val")) == ((0,), None, 2)
    assert isinstance(registry.build("sampler", "entropy_bound", {"gamma": 1}).gamma, float)
    assert registry.build("objective", "cj_grpo", {"num_steps": None}).num_steps is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Maze:
    """Settings of an environment, with options of every mark."""

    rooms: int = 3
    doors: int = added(default=1)
    seconds: float = unkeyed(1.0)
    threads: int = fixed(default=2)


class Mazes:
    """An environment whose options are the fields of its settings."""

    version: ClassVar[int] = 1

    def __init__(self, settings: Maze | None = None) -> None:
        self.settings = settings


@pytest.mark.parametrize("cls", [Maze, Mazes])
def test_results_are_keyed_by_what_can_change_a_number(cls: type) -> None:
    assert keyed(cls, {}, owner="maze") == {"rooms": 3, "threads": 2}
    idle = {"doors": 1, "seconds": 9.0, "threads": 8}
    assert keyed(cls, idle, owner="maze") == keyed(cls, {}, owner="maze")
    assert keyed(cls, {"doors": 2}, owner="maze") == {"rooms": 3, "doors": 2, "threads": 2}


@pytest.mark.parametrize(
    ("name", "idle"),
    [
        ("forms", {"concurrency": 2, "cache_dir": "elsewhere"}),
        ("episodes", {"concurrency": 2, "max_open": 3}),
        ("miniwob", {"concurrency": 1}),
        ("gymnasium", {"concurrency": 2}),
    ],
)
def test_how_many_run_at_a_time_owes_nothing_anew(name: str, idle: dict) -> None:
    needed = {"id": "Maze-v0"} if name == "gymnasium" else {}
    usual = registry.identity("environment", name, needed)
    assert registry.identity("environment", name, {**needed, **idle}) == usual
    assert usual["options"].keys() >= idle.keys(), "keys of finished results have them"


def test_sessions_at_a_time_are_no_part_of_a_key() -> None:
    here = {"url": "http://localhost:8000"}
    more = registry.identity("environment", "openenv", {**here, "concurrency": 2})
    assert more == registry.identity("environment", "openenv", here)


def test_what_the_caller_gives_is_no_option() -> None:
    assert registry.build("sampler", "klass", {"history": 3}, temperature=0.5).temperature == 0.5
    with pytest.raises(ConfigError, match=r"temperature=0\.7 was given as an option; its caller sets it"):
        registry.build("sampler", "klass", {"temperature": 0.7}, temperature=0.5)


def test_a_component_that_is_undefined_for_the_family_is_refused() -> None:
    assert registry.build("objective", "espo", family="flow").name == "espo"
    for kind, name in (("objective", "espo_unshared"), ("sampler", "klass")):
        with pytest.raises(ConfigError, match=f"{kind} '{name}' is undefined for the autoregressive family"):
            registry.build(kind, name, family="autoregressive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wander:
    """An environment of somebody else, with an option that must be given."""

    version: ClassVar[int] = 1
    maze: str
    size: int = 3


class Walk:
    """Another, with a constructor of its own."""

    version: ClassVar[int] = 1

    def __init__(self, maze: str, *, size: int = 3, **_: object) -> None:
        if size > 9:
            raise ValueError("mazes have at most 9 rooms")
        self.maze, self.size = maze, size


@pytest.mark.parametrize("cls", [Wander, Walk])
def test_components_of_others_go_the_same_way(monkeypatch: pytest.MonkeyPatch, cls: type) -> None:
    monkeypatch.setitem(registry._REGISTRY, "environment", {"wander": cls})
    assert registry.build("environment", "wander", {"maze": "hedge"}).size == 3
    with pytest.raises(ConfigError, match="environment 'wander': option maze is missing"):
        registry.build("environment", "wander", {"size": 2})
    with pytest.raises(ConfigError, match="size='big' was given"):
        registry.build("environment", "wander", {"maze": "hedge", "size": "big"})
    with pytest.raises(ConfigError, match="Did you mean 'size'"):
        registry.build("environment", "wander", {"maze": "hedge", "sise": 2})


def test_a_value_that_a_constructor_refuses_is_a_message_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._REGISTRY, "environment", {"walk": Walk})
    with pytest.raises(ConfigError, match="environment 'walk': mazes have at most 9 rooms"):
        registry.build("environment", "walk", {"maze": "hedge", "size": 10})


def test_a_broken_entry_point_takes_nothing_else_down(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint(name="lost", value="no_such_package:Lost", group="dllm_rl.samplers")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point] if point.group == group else [])
    monkeypatch.setattr(registry, "_discovered", set())
    monkeypatch.setattr(registry, "_BROKEN", {kind: {} for kind in registry.KINDS})
    assert "klass" in registry.names("sampler")
    assert "no_such_package" in registry.broken("sampler")["lost"]
    with pytest.raises(ConfigError, match=r"sampler 'lost' cannot be used: its entry point no_such_package:Lost"):
        registry.build("sampler", "lost")
    with pytest.raises(ConfigError, match=r"no sampler named 'found'.*Not loaded: 'lost'"):
        registry.build("sampler", "found")


def test_two_classes_cannot_have_one_name() -> None:
    with pytest.raises(ConfigError, match="two rewards are named 'shaped'"):
        registry.register("reward", "shaped")(type("Shaped", (), {}))


@pytest.mark.parametrize(
    ("kind", "declared", "missing"),
    [
        ("reward", {}, r"reward 'own', \S+Own, does not declare version\. Write `version: ClassVar\[int\] = 1`"),
        ("reward", {"version": 1}, r"does not declare needs_truth\. Derive it from `dllm_rl.reward.OutcomeReward`"),
        ("environment", {}, "does not declare version"),
        ("sampler", {"version": 1, "name": "own"}, "sampler 'own', .* does not declare families"),
        ("objective", {"version": 1, "families": ("any",)}, "objective 'own', .* does not declare name"),
        ("policy", {"version": 1}, "policy 'own', .* does not declare family"),
        ("policy", {"version": 1, "family": "any"}, "policy 'own', .* goes by the family 'any'"),
        ("sampler", {"version": 1, "name": "threshold", "families": ()}, "sampler 'own', .* goes by the name 'thresh"),
    ],
)
def test_what_a_component_must_declare_is_demanded_when_it_is_registered(
    kind: str, declared: dict, missing: str
) -> None:
    with pytest.raises(ConfigError, match=missing):
        registry.register(kind, "own")(type("Own", (), declared))
    assert "own" not in registry.names(kind)
