"""`verify` finds every changed bit and names its file, and finds what checksums cannot see."""

import errno
import io
import json
import random
import re

import numpy as np
import pytest

from features.commits import CommitFolder, FileStamp
from features.checksum import crc32c_hex
from features.schema import Storage
from features.checksum import with_crc32c
from features.shards import ShardWriter
from features.store import open_store
from features.stored_video import StoredVideo
from features import verify_video
from features.verify import Problem, verify_store
from features.zarr_layout import spec_of
from tests.features.store_builder import add_video, simulated_tokens, small_store
from vjepa_loc.errors import ConfigError, StoreError

NUM_STEPS = 20


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    add_video(store, "a", simulated_tokens(NUM_STEPS))
    add_video(store, "B", simulated_tokens(5, seed=1))
    return store


def test_a_whole_store_is_green(store):
    report = store.verify()
    assert report.ok and report.num_videos == 2 and report.video_ids == []
    assert report.num_bytes == sum(summary.bytes for summary in store.summaries().values())
    expected = {"ok": True, "videos": 2, "checked": 2, "bytes": report.num_bytes, "seed": None, "problems": []}
    assert json.loads(json.dumps(report.to_dict())) == expected


def test_a_float16_store_and_one_without_tokens_are_green(tmp_path):
    for number, storage in enumerate([Storage(number_format="float16"), Storage(levels=("pool4", "pool1"))]):
        store = small_store(tmp_path / str(number), storage)
        add_video(store, "a", simulated_tokens(5), fit="letterbox")
        assert store.verify().ok


def test_a_flipped_bit_anywhere_is_found_and_named(store):
    chance = random.Random(0)
    folders = [store.path / "tokens.zarr", store.path / "commits"]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    assert len(files) > 50
    for path in files + chance.choices(files, k=20):
        raw = path.read_bytes()
        broken = bytearray(raw)
        broken[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        report = store.verify()
        assert str(path.relative_to(store.path)) in {problem.file for problem in report.problems}, path
        path.write_bytes(raw)
    assert store.verify().ok


def test_a_flipped_bit_in_a_compressed_store_is_found_and_named(tmp_path):
    store = small_store(tmp_path / "store", Storage(shard_steps=16, compression="zstd"))
    add_video(store, "a", simulated_tokens(NUM_STEPS))
    assert store.verify().ok
    chance = random.Random(0)
    for path in sorted(path for path in (store.path / "tokens.zarr").rglob("c/**/*") if path.is_file()):
        raw = path.read_bytes()
        broken = bytearray(raw)
        broken[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        assert [problem.file for problem in store.verify().problems] == [str(path.relative_to(store.path))]
        path.write_bytes(raw)
    assert store.verify().ok


def test_only_the_damaged_video_is_named(store):
    path = store.path / "tokens.zarr" / store.commit_of("B").path / "scale/c/0/0/0"
    path.write_bytes(path.read_bytes()[:-3])
    report = store.verify()
    assert report.video_ids == ["B"]
    [problem] = report.problems
    assert str(problem).endswith(f"scale/c/0/0/0: expected {path.stat().st_size + 3} bytes, got {path.stat().st_size} (video 'B')")
    assert store.verify(["a"]).ok


def test_a_missing_and_a_stray_file_are_named(store):
    group = store.path / "tokens.zarr" / store.commit_of("a").path
    (group / "pool2/zarr.json").unlink()
    (group / "notes.txt").write_text("mine")
    found = {problem.file.removeprefix(f"tokens.zarr/{store.commit_of('a').path}/"): problem.what for problem in store.verify().problems}
    assert found == {"pool2/zarr.json": "unreadable (No such file or directory)", "notes.txt": "a file that the commit does not name"}


@pytest.mark.parametrize("damage", [
    lambda raw: raw + b" ", lambda raw: b"", lambda raw: raw.replace(b"1", b"2"), lambda raw: bytes([raw[0] ^ 1]) + raw[1:], lambda raw: None,
], ids=["longer", "empty", "changed", "flipped", "gone"])
def test_damage_above_the_videos_is_named_and_needs_no_extraction(store, damage):
    for name in ("zarr.json", "videos/zarr.json", "videos/a/zarr.json"):
        path = store.path / "tokens.zarr" / name
        raw = path.read_bytes()
        path.unlink()
        if damage(raw) is not None:
            path.write_bytes(damage(raw))
        if damage(raw) == raw:
            continue
        report = verify_store(store.path)
        assert {problem.file for problem in report.problems} == {f"tokens.zarr/{name}"} and report.video_ids == [], report
        path.write_bytes(raw)
    assert verify_store(store.path).ok


def test_what_never_was_a_store_is_no_damage(store, tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(StoreError, match="is not a store|does not exist"):
            verify_store(path)


def test_damaged_records_are_named_and_the_other_videos_are_checked(store):
    record, raw = store.path / "commits/a.json", (store.path / "commits/a.json").read_bytes()
    # Another video's record under this name is whole, and wrong all the same.
    for damaged in (raw[:-1], b"", raw.replace(b'"grid"', b'"gird"'), (store.path / CommitFolder(store.place).file("B")).read_bytes()):
        record.write_bytes(damaged)
        for report in (store.verify(), store.verify(["a"])):
            assert [problem.file for problem in report.problems] == ["commits/a.json"]
        assert store.verify().checked == ("B",)


def test_stray_files_are_named_and_other_generations_are_not(store):
    strays = ["commits/notes.txt", "tokens.zarr/.zgroup", "tokens.zarr/videos/x", "tokens.zarr/videos/a/y"]
    for name in strays:
        (store.path / name).touch()
    add_video(store, "a", simulated_tokens(3), replace=True)
    assert sorted(problem.file for problem in store.verify().problems) == sorted(strays)


def test_a_sample_is_checked_whole_and_of_the_others_the_sizes(store):
    for number in range(6):
        add_video(store, f"v{number}", simulated_tokens(3, seed=number))
    report = verify_store(store.path, sample=2, seed=7)
    assert report.ok and report.num_videos == 8 and len(report.checked) == 2 and report.seed == 7
    assert report.checked == verify_store(store.path, sample=2, seed=7).checked
    assert len({verify_store(store.path, sample=2).checked for _ in range(20)}) > 1, "without a seed another sample each time"
    assert verify_store(store.path, sample=100).checked == tuple(sorted(store.video_ids()))
    drawn, left = report.checked[0], next(video_id for video_id in store.video_ids() if video_id not in report.checked)
    for video_id, cut, is_found in ((drawn, False, True), (left, False, False), (left, True, True)):
        path = store.path / "tokens.zarr" / store.commit_of(video_id).path / "pool2/c/0/0/0/0"
        raw = path.read_bytes()
        path.write_bytes(raw[:-1] if cut else bytes([raw[0] ^ 1]) + raw[1:])
        found = verify_store(store.path, sample=2, seed=7).video_ids
        assert found == ([video_id] if is_found else [])
        path.write_bytes(raw)
    with pytest.raises(ConfigError, match="from 1 on"):
        verify_store(store.path, sample=0)


def test_a_disk_that_fails_while_it_is_read_is_a_problem_of_that_file(store, monkeypatch):
    bad = store.path / "tokens.zarr" / store.commit_of("a").path / "tokens/c/1/0/0/0"

    class Failing(io.FileIO):
        def readinto(self, buffer):
            raise OSError(errno.EIO, "Input/output error")

    def open_failing(path, *args, **options):
        return Failing(path) if path == bad else open(path, *args, **options)

    monkeypatch.setattr(verify_video, "open", open_failing, raising=False)
    [problem] = store.verify().problems
    assert str(problem) == f"{bad.relative_to(store.path)}: unreadable (Input/output error) (video 'a')"


def test_files_that_were_exchanged_are_named(store):
    add_video(store, "c", simulated_tokens(NUM_STEPS, seed=5))
    for file in ("tokens/c/1/0/0/0", "mean/c/0"):
        paths = [store.path / "tokens.zarr" / store.commit_of(video_id).path / file for video_id in "ac"]
        raws = [path.read_bytes() for path in paths]
        for path, raw in zip(paths, reversed(raws), strict=True):
            path.write_bytes(raw)
        report = open_store(store.path).verify()
        assert report.video_ids == ["a", "c"]
        named = {problem.file for problem in report.problems if "expected chunks whose checksums" in problem.what}
        assert named == {str(path.relative_to(store.path)) for path in paths}
        for path, raw in zip(paths, raws, strict=True):
            path.write_bytes(raw)
    assert open_store(store.path).verify().ok


def test_an_unknown_video_cannot_be_verified(store):
    with pytest.raises(StoreError, match="has no valid video 'b'"):
        store.verify(["b"])


def changed_checksums(spec, raw):
    stored = spec.chunk_bytes + 4
    end = len(raw) if spec.shard_steps is None else len(raw) - spec.index_size
    return b"".join(raw[stop - 4 : stop] for stop in range(stored, end + 1, stored))


def recommit(store, name, write):
    """Rewrites an array of video a and its commit, so that every checksum is right again."""
    commit = store.commit_of("a")
    folder = store.path / "tokens.zarr" / commit.path / name
    spec = spec_of(json.loads((folder / "zarr.json").read_bytes()))
    files = dict(commit.files)
    for file, raw in write(folder, spec).items():
        (folder / file).write_bytes(raw)
        chunks = changed_checksums(spec, raw)
        files[f"{commit.path}/{name}/{file}"] = FileStamp(len(raw), crc32c_hex(raw), crc32c_hex(chunks))
    forged = type(commit)(commit.video_id, commit.path, commit.storage, commit.summary, files)
    (store.path / CommitFolder(store.place).file("a")).write_bytes(forged.to_bytes())


def changed_steps(store, name, change):
    def write(folder, spec):
        video = store.video("a")
        values = video.read_codes()[1 if name == "scale" else 0] if name in ("tokens", "scale") else video.read(name)
        change(values)
        beside = store.path / "staging" / name
        stamps = ShardWriter(beside, spec)
        stamps.append(values)
        return {file: (beside / file).read_bytes() for file in stamps.close()}

    recommit(store, name, write)


def changed_whole(store, name, values):
    recommit(store, name, lambda folder, spec: {spec.shard_name(0): with_crc32c(values.astype(spec.dtype).tobytes())})


def set_to(index, value):
    def change(values):
        values[index] = value
    return change


@pytest.mark.parametrize(("damage", "message"), [
    (lambda store: changed_steps(store, "tokens", set_to((17, 2, 2, 3), -128)), r"step 17 holds a fill value \(a hole\)"),
    (lambda store: changed_steps(store, "scale", set_to((3, 1, 1), np.inf)), "array 'scale': step 3 holds a fill value"),
    (lambda store: changed_steps(store, "pool4", set_to((9, 1, 1, 0), 500)), "pool4: not the mean of the tokens in 1 steps, the first is 9"),
    (lambda store: changed_steps(store, "tokens", set_to((4, 1, 1, 5), 127)), "pool4: not the mean of the tokens in 1 steps, the first is 4"),
    (lambda store: changed_whole(store, "std", np.zeros(24)), "std: a channel without a positive std"),
    (lambda store: changed_whole(store, "mean", np.full(24, np.nan)), "array 'mean': a value is not finite"),
    (lambda store: changed_whole(store, "frames", np.full((20, 2), 99)), r"frames: step frames: expected numbers in 0\.\.39"),
    (lambda store: changed_whole(store, "last_frame_seen", np.zeros(20)), "a clip that did not see the frames of its step"),
    (lambda store: changed_whole(store, "frame_time_s", -np.arange(40)), "frame_time_s: expected 40 times that start at 0"),
])
def test_what_checksums_cannot_see_is_found(store, damage, message):
    damage(store)
    report = open_store(store.path).verify()
    assert report.video_ids == ["a"]
    assert any(re.search(message, str(problem)) for problem in report.problems), report.problems


def test_a_level_of_another_shape_is_found(store, monkeypatch):
    genuine = StoredVideo.shape
    monkeypatch.setattr(StoredVideo, "shape", lambda video, level="tokens": (*genuine(video, level)[:3], 7))
    assert "array 'tokens': expected shape (20, 6, 6, 24), got (20, 6, 6, 7)" in str(store.verify(["a"]).problems[0])


def test_no_error_of_the_quantiser_is_taken_for_damage(tmp_path):
    store = small_store(tmp_path / "store")
    tokens = simulated_tokens(12, seed=2)
    # A first clip that is unlike the rest, and channels far from it: the worst that the quantiser may do.
    tokens[8:] = tokens[8:] * 50 + 20
    add_video(store, "wild", tokens)
    tokens = simulated_tokens(12, seed=3)
    tokens[:8] = 0.5
    add_video(store, "blank", tokens)
    report = store.verify()
    assert report.ok, report


def test_a_problem_reads_as_one_line():
    assert str(Problem("v", "tokens.zarr/x", "gone")) == "tokens.zarr/x: gone (video 'v')"
    assert str(Problem(None, "commits/x.json", "cut")) == "commits/x.json: cut"
