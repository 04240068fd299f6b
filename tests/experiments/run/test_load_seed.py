"""What a cell's seed trained is loaded as its cell says: what would be ignored is refused."""

from __future__ import annotations

import json

import pytest

from dllm_rl.errors import CheckpointError, ConfigError
from dllm_rl.load_options import LoadOptions
from experiments.run.policies import load


def test_a_seed_is_loaded_as_it_was_trained(tmp_path) -> None:
    (tmp_path / "cell.json").write_text(json.dumps({"checkpoint": "builtin:masked", "facts": {}, "loading": {}}))
    with pytest.raises(ConfigError, match=r"facts\.canvas_length, dtype was given.*only `device` may differ"):
        load(str(tmp_path), facts={"canvas_length": 50}, options=LoadOptions(dtype="bfloat16", device="cuda"))
    with pytest.raises(CheckpointError, match="no trained weights yet"):
        load(str(tmp_path), options=LoadOptions(device="cuda"))
