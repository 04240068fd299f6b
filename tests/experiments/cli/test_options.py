"""`dllm-rl list KIND NAME`: the options that a component really has, with their defaults, and no other."""

from __future__ import annotations

import json

import pytest

from dllm_rl import registry
from dllm_rl.training.config import TrainConfig
from experiments.cli.options import REQUIRED, descriptions, options
from tests.experiments.cli.test_cli import said

KINDS = ("objective", "sampler", "environment", "reward")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_listed_is_what_can_be_set(kind: str) -> None:
    """Every default is accepted as an option; a component takes no name beside."""
    for name, _ in registry.items(kind):
        listed = {entry["name"]: entry for entry in options(kind, name)}
        free = {key: entry["default"] for key, entry in listed.items() if entry["default"] != REQUIRED}
        if len(free) == len(listed):
            assert registry.identity(kind, name, free) == registry.identity(kind, name, {})


def test_the_nearest_description_of_an_option_is_shown() -> None:
    class Base:
        """First.

        Attributes:
            one, two: Of both,
                in two lines.
            three: Of the base.
        """

    class Derived(Base):
        """Second.

        Args:
            three: Of its own.
        """

    assert descriptions(Derived) == {
        "one": "Of both, in two lines.",
        "two": "Of both, in two lines.",
        "three": "Of its own.",
    }


def test_the_settings_of_training_are_listed(monkeypatch, capsys) -> None:
    code, shown, _ = said(("list", "training", "--json"), monkeypatch, capsys)
    found = {entry["name"]: entry for entry in json.loads(shown)}
    assert code == 0 and found.keys() == TrainConfig.model_fields.keys()
    assert found["steps"] == {"name": "steps", "type": "int", "default": 20, "summary": ""}
    code, shown, _ = said(("list", "environments", "forms"), monkeypatch, capsys)
    assert code == 0 and "second_button" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("training", "steps"), "training is one set of settings"),
        (("presets", "quick"), "presets have no options"),
        (("objectives", "esp"), "Did you mean 'espo'"),
        (("trainin",), "Did you mean 'training'"),
    ],
)
def test_what_has_no_options_is_refused(words, message, monkeypatch, capsys) -> None:
    code, _, errors = said(("list", *words), monkeypatch, capsys)
    assert code == 2 and message in errors
