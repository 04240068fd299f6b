"""Tables of results: what makes two of them the same."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from experiments.run.results import is_equal, settings_of, write_rows
from tests.experiments.grids import FakeWork, plan


def test_columns_that_an_older_version_did_not_have_make_no_difference(tmp_path) -> None:
    unit = plan(tmp_path).units[0]
    rows = FakeWork().warm_start(unit, print)
    new, old, other = (tmp_path / name for name in ("new.parquet", "old.parquet", "other.parquet"))
    write_rows(new, [{**row, "num_turns": 1, "seconds": 9.0} for row in rows], **unit.labels)
    pq.write_table(pq.read_table(new).drop_columns(["num_turns", "ending"]), old)
    assert is_equal(new, old) and is_equal(old, new)
    write_rows(other, [{**row, "reward": row["reward"] + 1} for row in rows], **unit.labels)
    assert not is_equal(other, old) and not is_equal(new, other)
    pq.write_table(pa.table({"other": [1]}), old)
    assert not is_equal(new, old)


def test_a_table_outside_of_a_run_says_what_it_ran_under(tmp_path) -> None:
    unit = plan(tmp_path).units[0]
    settings = {"environment": {"name": "forms", "options": {"design": "newer"}}, "reward": {"name": "outcome"}}
    write_rows(tmp_path / "eval.parquet", FakeWork().warm_start(unit, print), settings=settings, **unit.labels)
    write_rows(tmp_path / "unit.parquet", FakeWork().warm_start(unit, print), **unit.labels)
    assert settings_of(tmp_path / "eval.parquet") == settings
    assert settings_of(tmp_path / "unit.parquet") == {}
