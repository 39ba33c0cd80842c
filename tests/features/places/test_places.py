"""What every place of a store has to do, whichever it is."""

import time

import pytest

from features.checksum import crc32c_hex
from features.commits import Commit, FileStamp, VideoSummary
from features.places import place_of
from features.schema import Storage
from features.zarr_layout import GROUP_BYTES
from vjepa_loc.errors import StoreError

pytestmark = pytest.mark.timeout(60)
GENERATION = "tokens.zarr/videos/a%20b/0f"


@pytest.fixture(params=["folder", "objects"])
def place(request, tmp_path):
    if request.param == "objects":
        place = place_of(request.getfixturevalue("url"))
    else:
        place = place_of(tmp_path / "store")
    place.make()
    return place


def stamp_of(data: bytes) -> FileStamp:
    return FileStamp(len(data), crc32c_hex(data))


def published(place, files, generation=GENERATION):
    staged = place.staging / "new/video"
    for name, data in files.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_bytes(data)
    place.publish(staged, generation)


def test_a_file_is_created_once(place):
    assert place.create("commits/a.json", b"first") and not place.create("commits/a.json", b"second")
    assert place.read("commits/a.json") == b"first" and place.entry("commits/a.json").size == 5
    assert place.entry("commits/b.json") is None and place.entry("nowhere/b.json") is None
    with pytest.raises(FileNotFoundError):
        place.read("commits/b.json")
    with pytest.raises(FileNotFoundError):
        place.read_versioned("commits/b.json")


def test_a_file_is_replaced_only_if_it_is_the_one_that_was_read(place):
    place.create("commits/a.json", b"first")
    data, version = place.read_versioned("commits/a.json")
    assert data == b"first" and version == place.entry("commits/a.json").version
    time.sleep(0.01)
    assert place.replace("commits/a.json", b"second", version)
    assert not place.replace("commits/a.json", b"third", version) and place.read("commits/a.json") == b"second"
    assert not place.replace("commits/none.json", b"x", version) and place.entry("commits/none.json") is None
    assert place.replace("commits/a.json", b"fourth") and place.replace("manifest/all.jsonl", b"new")
    assert place.read("commits/a.json") == b"fourth" and place.read("manifest/all.jsonl") == b"new"


def test_listings_show_one_folder_in_order(place):
    for name in ("b", "a%20", "a"):
        place.create(f"commits/{name}.json", name.encode())
    published(place, {"zarr.json": b"{}", "x/c/0": b"123"})
    entries = place.entries("commits")
    assert [entry.name for entry in entries] == ["commits/a%20.json", "commits/a.json", "commits/b.json"]
    assert [entry.size for entry in entries] == [4, 1, 1] and len({entry.version for entry in entries}) == 3
    assert all(abs(time.time() - entry.modified_s) < 60 for entry in entries)
    assert place.entries("ledger") == [] and [entry.name for entry in place.entries("tokens.zarr/videos")] == ["tokens.zarr/videos/zarr.json"]
    assert list(place.read_many(["commits/b.json", "commits/c.json", "commits/a.json"])) == [b"b", None, b"a"]


def test_a_published_generation_is_read_as_it_was_staged(place, tmp_path):
    files = {"zarr.json": b"{}", "x/zarr.json": b"{ }", "x/c/0": bytes(range(256))}
    published(place, files)
    names = {f"{GENERATION}/{name}": len(data) for name, data in files.items()}
    groups = {name: len(GROUP_BYTES) for name in ("tokens.zarr/videos/zarr.json", "tokens.zarr/videos/a%20b/zarr.json")}
    assert place.sizes([*names, *groups, f"{GENERATION}/none", "tokens.zarr/none"]) == names | groups
    for name, data in files.items():
        full, stamp = f"{GENERATION}/{name}", stamp_of(data)
        place.fetch_soon(full, stamp)
        assert place.local_file(full, stamp).read_bytes() == data and place.fetch_soon(full, stamp)
        assert place.copy_out(full, tmp_path / name.replace("/", "-")) == (stamp.size, stamp.crc32c)
        assert (tmp_path / name.replace("/", "-")).read_bytes() == data
    assert place.where(f"{GENERATION}/x/c/0") == f"{place.path}/{GENERATION}/x/c/0"
    folder = place.local_folder(GENERATION, {name: stamp_of(data) for name, data in files.items()})
    assert (folder / "x/c/0").read_bytes() == files["x/c/0"]
    commit = Commit("a b", GENERATION.removeprefix("tokens.zarr/"), Storage(), VideoSummary(1, 1, 1, 1, (1, 1), 1, False), {
        "videos/zarr.json": stamp_of(GROUP_BYTES), **{f"{GENERATION.removeprefix('tokens.zarr/')}/{name}": stamp_of(data) for name, data in files.items()},
    })
    place.create(f"{GENERATION}/x/stray", b"?")
    with place.folder_of(commit) as folder:
        assert (folder / GENERATION / "x/c/0").read_bytes() == files["x/c/0"] and (folder / GENERATION / "x/stray").exists()
        assert (folder / "tokens.zarr/videos/zarr.json").read_bytes() == GROUP_BYTES
    with pytest.raises(FileNotFoundError):
        place.copy_out(f"{GENERATION}/none", tmp_path / "none")


def test_what_is_idle_is_known_and_removed_whole(place, monkeypatch):
    published(place, {"zarr.json": b"{}", "x/c/0": b"12345678"})
    published(place, {"zarr.json": b"{}"}, "tokens.zarr/videos/b/1f")
    place.create("staging/left", b"123")
    assert {tree.name for tree in place.generations()} == {GENERATION, "tokens.zarr/videos/b/1f"}
    assert "staging/left" in {tree.name for tree in place.staged()} and place.tree_bytes("staging/left") == 3
    assert place.tree_bytes(GENERATION) == 10 and place.tree_bytes("staging/none") == 0
    assert all(tree.idle_s < 60 for tree in place.generations())
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 1000)
    assert all(tree.idle_s > 900 for tree in (*place.generations(), *place.staged()))
    place.remove_tree(GENERATION)
    place.remove_tree("staging/left")
    place.remove("commits/none.json")
    place.remove_tree("tokens.zarr/videos/none/0")
    assert [tree.name for tree in place.generations()] == ["tokens.zarr/videos/b/1f"]
    assert place.entry("staging/left") is None and place.entry("tokens.zarr/videos/a%20b/zarr.json") is not None


def test_writers_add_lines_without_meeting(place):
    for number in range(3):
        for writer in ("one", "two"):
            place.append_line("ledger", writer, f"{writer} {number}\n".encode())
    lines = b"".join(place.read_many(entry.name for entry in place.entries("ledger"))).splitlines()
    assert lines == [f"{writer} {number}".encode() for writer in ("one", "two") for number in range(3)]


def test_a_place_that_holds_something_else_or_is_none_is_refused(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(StoreError, match="exists and is not a store"):
        place_of(tmp_path).make()
    with pytest.raises(StoreError, match="expected a folder, s3://BUCKET/NAME or gs://BUCKET/NAME"):
        place_of("az://container/x")
