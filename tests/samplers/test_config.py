"""A sampler's configuration goes through plain data and JSON and comes back the same, or says what is wrong with it."""

from __future__ import annotations

import dataclasses

import pytest

from dllm_rl import registry
from dllm_rl.errors import ConfigError
from samplers.config import sampler_from_dict, sampler_from_json, sampler_to_dict, sampler_to_json

NAMES = registry.names("sampler")


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name):
    cls = registry.get("sampler", name)
    sampler = cls(temperature=0.25, grammar=True)
    assert sampler_from_dict(sampler_to_dict(sampler)) == sampler
    assert sampler_from_json(sampler_to_json(sampler)) == sampler
    assert sampler_from_dict({"sampler": name}) == cls()
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.temperature = 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler": "treshold"}, "Did you mean 'threshold'"),
        ({"sampler": "threshold", "treshold": 0.5}, "option of sampler 'threshold' named 'treshold'. Did you mean"),
        ({"sampler": "threshold", "threshold": "high"}, "threshold='high'"),
        ({"sampler": "threshold", "threshold": 1.5}, "strictly between 0 and 1"),
        ({"sampler": "remdm", "schedule": "cup"}, "schedule='cup'"),
        ({"threshold": 0.5}, "names it"),
    ],
)
def test_mistakes(values, message):
    with pytest.raises(ConfigError, match=message):
        sampler_from_dict(values)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_no_json_object(text):
    with pytest.raises(ConfigError, match="JSON object"):
        sampler_from_json(text)
