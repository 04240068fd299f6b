"""A file is whole or absent, and its hash is that of its content."""

from __future__ import annotations

import hashlib

import pytest

from dllm_rl.files import replace_file, replace_folder, sha256


def test_a_file_that_is_cut_off_leaves_the_old_one(tmp_path):
    path = tmp_path / "deep" / "a.txt"

    def write(text, *, is_killed=False):
        with replace_file(path) as temporary:
            temporary.write_text(text)
            if is_killed:
                raise KeyboardInterrupt

    write("first")
    with pytest.raises(KeyboardInterrupt):
        write("ha", is_killed=True)
    assert path.read_text() == "first"
    assert [item.name for item in path.parent.iterdir()] == ["a.txt"]
    assert sha256(path) == hashlib.sha256(b"first").hexdigest()


def test_a_folder_that_is_cut_off_leaves_the_old_one(tmp_path):
    folder = tmp_path / "state"

    def write(text, *, is_killed=False):
        with replace_folder(folder) as temporary:
            (temporary / "a.txt").write_text(text)
            if is_killed:
                raise KeyboardInterrupt

    write("first")
    with pytest.raises(KeyboardInterrupt):
        write("ha", is_killed=True)
    assert (folder / "a.txt").read_text() == "first"
    assert [item.name for item in tmp_path.iterdir()] == ["state"]
    (tmp_path / "state.old").mkdir()
    write("second")
    (tmp_path / "state.old").rmdir()
    assert (folder / "a.txt").read_text() == "second"
    assert [item.name for item in tmp_path.iterdir()] == ["state"]
