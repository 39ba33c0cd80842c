"""Small files are written in full or not at all."""

import os
from pathlib import Path

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


def test_only_a_file_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, what in ((tmp_path / "pipe", "no plain file"), (tmp_path, "a folder"), (Path(), "a folder")):
        with pytest.raises(OSError, match=f"expected the name of a file, {what} is there") as caught:
            write_text(place, "new")
        assert str(place) in str(caught.value)
    assert os.listdir(tmp_path) == ["pipe"] and (tmp_path / "pipe").is_fifo()


def test_a_link_stays_and_the_file_behind_it_is_written(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "first")
    write_text(tmp_path / "link", "second")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "second"
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / ("x" * 300)
    with pytest.raises(OSError) as caught:
        write_text(path, "new")
    assert caught.value.filename == str(path) and caught.value.filename2 is None
