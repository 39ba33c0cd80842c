"""Small files are written in full or not at all."""

import os

import pytest

from vjepa_loc.atomic import write_text


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "deep" / "er" / "file.json"
    write_text(path, "é\n")
    write_text(path, "second\n")
    assert path.read_text(encoding="utf-8") == "second\n"
    assert os.listdir(path.parent) == ["file.json"]


def test_a_failure_keeps_the_old_file_and_leaves_no_part(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_text(path, "old")

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file.json"]
