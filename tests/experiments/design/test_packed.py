"""What was published stays finished: its digest is the one that today's preset and code have."""

from __future__ import annotations

import json
import lzma
import tarfile
from pathlib import Path

import pytest

from experiments.design.config import build_session
from experiments.design.presets import load_preset
from experiments.design.units import TaskSets, plan_grid
from experiments.run.archive import MANIFEST

GRIDS = Path(__file__).parents[3] / "docs" / "results" / "grids"


PACKED = [
    "grid16",
    "grid16_lr",
    "ablation_masks",
    "ablation_level",
    "null16",
    "study16",
    "weak_judge",
    "episodes_quick",
]


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_grid_owes_nothing(tmp_path, name):
    """A digest that changes owes the study anew. If that is meant, run and pack it again."""
    with lzma.open(GRIDS / f"{name}.tar.xz") as file, tarfile.open(fileobj=file) as archive:
        member = archive.extractfile(MANIFEST)
        assert member is not None
        manifest = json.load(member)
    preset = load_preset(name)
    with build_session(preset.environment) as session:
        assert plan_grid(preset, TaskSets.of(preset, session), tmp_path).config.digest == manifest["grid"]
