"""The manifest is a cache: listings are right with it, without it, and when it lies."""

import shutil
import time

import pytest

from features.commits import Commit, CommitFolder, VideoSummary, key_of
from features.manifest import Manifest
from features.schema import Storage
from features.store import open_store
from tests.features.store_builder import add_video, simulated_tokens, small_store


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    for video_id in ("b", "a"):
        add_video(store, video_id, simulated_tokens(3))
    return store


def count_reads(monkeypatch):
    reads, parse = [], CommitFolder.parse

    def counting(self, file, raw):
        reads.append(file)
        return parse(self, file, raw)

    monkeypatch.setattr(CommitFolder, "parse", counting)
    return reads


def test_a_listing_reads_no_commit_that_the_manifest_knows(store, monkeypatch):
    reads = count_reads(monkeypatch)
    assert open_store(store.path).video_ids() == ["a", "b"] and reads == []


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_listing_is_right_whatever_the_manifest_says(store, damage):
    expected = store.info()
    [file] = (store.path / "manifest").iterdir()
    if damage == "gone":
        shutil.rmtree(file.parent)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-30])
    else:
        file.write_bytes(file.read_bytes().replace(b'"steps":3', b'"steps":7'))
    assert open_store(store.path).info() == expected


def test_a_replaced_or_removed_commit_is_seen(store):
    add_video(store, "a", simulated_tokens(4), replace=True)
    assert open_store(store.path).summaries()["a"].steps == 4
    (store.path / "commits/a.json").unlink()
    assert open_store(store.path).video_ids() == ["b"]


def test_many_videos_are_listed_quickly_and_the_manifest_is_rebuilt(store, monkeypatch):
    commits = CommitFolder(store.place)
    summary = VideoSummary(10, 64, 48, 5, (6, 6), 1234, False)
    for number in range(1500):
        video_id = f"v{number:04d}"
        commit = Commit(video_id, f"videos/{key_of(video_id)}/00", Storage(), summary, {})
        (store.path / commits.file(video_id)).write_bytes(commit.to_bytes())
    assert len(open_store(store.path).video_ids()) == 1502
    reads = count_reads(monkeypatch)
    started = time.process_time()
    assert len(open_store(store.path).video_ids()) == 1502 and reads == []
    # Ten thousand have one second; the bar leaves room for a slow machine.
    assert time.process_time() - started < 0.6
    Manifest(store.place, "x").compact(older_than_s=-1)
    assert [file.name for file in (store.path / "manifest").iterdir()] == ["all.jsonl"]
