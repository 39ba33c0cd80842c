"""Commit records: names, the seal over every byte, and who wins."""

import threading

import pytest

from features.commits import Commit, CommitFolder, FileStamp, VideoSummary, key_of, seal, unseal
from features.places.local import LocalPlace
from features.schema import Storage
from vjepa_loc.errors import CorruptStoreError, StoreError


def a_commit(video_id="a", generation="00ff") -> Commit:
    path = f"videos/{key_of(video_id)}/{generation}"
    summary = VideoSummary(10, 64, 48, 5, (6, 6), 1234, False)
    return Commit(video_id, path, Storage(), summary, {f"{path}/zarr.json": FileStamp(3, "0badcafe")})


@pytest.fixture
def place(tmp_path) -> LocalPlace:
    return LocalPlace(tmp_path)


@pytest.fixture
def folder(place) -> CommitFolder:
    return CommitFolder(place)


@pytest.mark.parametrize(("video_id", "key"), [
    ("v1_a-b", "v1_a-b"),
    ("a b/c.mp4", "a%20b%2Fc%2Emp4"),
    ("ü", "%C3%BC"),
    ("~", "%7E"),
    ("..", "%2E%2E"),
    ("x" * 120, "x" * 120),
    # sha256 of the id, worked out with sha256sum.
    ("A", "%41~559aead08264d579"),
    ("a" * 121, "a" * 120 + "~e9615320128cc7a3"),
])
def test_a_key_is_readable_and_safe(video_id, key):
    assert key_of(video_id) == key


def test_keys_differ_on_file_systems_that_ignore_case():
    ids = ["a", "A", "%41", "%c3", "Ü", "ü", "ab" * 70, "ab" * 71, "aB" * 70]
    assert len({key_of(video_id).lower() for video_id in ids}) == len(ids)
    assert max(len(key_of(video_id)) for video_id in ids) <= 137


@pytest.mark.parametrize("video_id", ["", "\ud800"])
def test_an_id_that_no_file_can_carry_is_refused(video_id):
    with pytest.raises(StoreError, match="video id"):
        key_of(video_id)


def test_every_changed_bit_of_a_record_is_noticed():
    raw = seal({"id": "ü", "n": 1})
    assert unseal(raw) == {"id": "ü", "n": 1}
    for position in range(len(raw)):
        for bit in range(8):
            broken = bytearray(raw)
            broken[position] ^= 1 << bit
            with pytest.raises(ValueError):
                unseal(bytes(broken))
    for length in range(len(raw)):
        with pytest.raises(ValueError):
            unseal(raw[:length])


def test_a_commit_survives_its_file():
    commit = a_commit("Ü b")
    assert Commit.from_bytes(commit.to_bytes()) == commit


def test_a_record_under_another_name_or_path_is_invalid(place, folder):
    place.replace(folder.file("b"), a_commit("a").to_bytes())
    with pytest.raises(CorruptStoreError, match="belongs to the id 'a'"):
        folder.load(folder.file("b"))
    stray = Commit("a", "videos/b/00", Storage(), a_commit().summary, {})
    with pytest.raises(ValueError, match="does not belong to the id 'a'"):
        Commit.from_bytes(stray.to_bytes())


def test_the_first_of_many_commits_wins(place, folder):
    won, start = [], threading.Barrier(8)

    def race(number):
        start.wait()
        if folder.create(a_commit(generation=f"{number:04x}")):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(won) == 1
    assert folder.get("a").path == f"videos/a/{won[0]:04x}"
    assert list(place.staging.iterdir()) == []


def test_a_damaged_record_counts_as_absent_and_is_overwritten(place, folder):
    folder.create(a_commit(generation="01"))
    place.replace(folder.file("a"), place.read(folder.file("a"))[:-9])
    assert folder.get("a") is None
    with pytest.raises(CorruptStoreError, match="counts as absent until it is extracted again"):
        folder.load(folder.file("a"))
    assert folder.create(a_commit(generation="02"))
    assert folder.get("a").path == "videos/a/02"


def test_replacing_needs_the_commit_that_was_read(folder):
    first, second, third = (a_commit(generation=name) for name in ("01", "02", "03"))
    folder.create(first)
    assert folder.replace(second, replaced=first)
    assert not folder.replace(third, replaced=first)
    assert folder.get("a") == second


def test_without_hard_links_the_first_still_wins(folder, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    assert folder.create(a_commit(generation="01"))
    assert not folder.create(a_commit(generation="02"))
    assert folder.get("a").path == "videos/a/01"
