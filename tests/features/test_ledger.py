"""The ledger keeps every attempt of every writer, and survives a crash in the middle of a line."""

import errno

import pytest

from features.ledger import Ledger
from features.places.local import LocalPlace
from vjepa_loc.errors import StoreError


def test_attempts_of_all_writers_are_told(tmp_path):
    Ledger(LocalPlace(tmp_path), "one").record("a", "failed", "no video stream", seconds=1.5)
    Ledger(LocalPlace(tmp_path), "two").record("Ü\ud800", "done")
    first, second = Ledger(LocalPlace(tmp_path), "three").entries()
    assert (first["writer"], first["id"], first["outcome"], first["reason"], first["seconds"]) == (
        "one", "a", "failed", "no video stream", 1.5,
    )
    assert second["writer"] == "two" and second["id"].startswith("Ü") and second["time"].endswith("Z")


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    ledger = Ledger(LocalPlace(tmp_path), "one")
    for video_id in "ab":
        ledger.record(video_id, "done")
    file = tmp_path / "ledger/one.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert [entry["id"] for entry in ledger.entries()] == ["a"]
    assert list(Ledger(LocalPlace(tmp_path / "none"), "x").entries()) == []


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    ledger = Ledger(LocalPlace(tmp_path), "one")
    ledger.record("a", "done")

    def half(fd, data):
        import os
        os.write(fd, bytes(data)[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("features.places.local.write_all", half)
        with pytest.raises(StoreError, match="no space left while writing the ledger"):
            ledger.record("b", "done")
    ledger.record("c", "done")
    assert [entry["id"] for entry in ledger.entries()] == ["a", "c"]
