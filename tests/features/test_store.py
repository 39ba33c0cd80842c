"""What is written is what is read, by us and by zarr-python; what is wrong is said."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

import features
from features.claims import RENEW_EVERY_S
from features.mapped_files import MappedFile
from features.schema import Damage, Storage
from features.store import create_or_open_store, open_store, temporary_store
from features.stored_video import StoredVideo
from tests.features.store_builder import (
    CHANNELS, add_video, read_all, simulated_tokens, small_encoding, small_store, space_grid, video_meta,
)
from vjepa_loc.errors import CorruptStoreError, StoreError, StoreMismatchError, UnknownNameError

NUM_STEPS = 37


@pytest.fixture
def store(tmp_path):
    store = small_store(tmp_path / "store")
    add_video(store, "a", simulated_tokens(NUM_STEPS))
    return store


def test_tokens_come_back_within_the_quantisers_error(store):
    tokens = simulated_tokens(NUM_STEPS)
    video = store.video("a")
    stored = video.read("tokens", out=np.empty(tokens.shape, np.float32))
    error = (stored - tokens) / video.std
    assert np.sqrt(np.mean(error**2)) < 0.008
    assert video.read("tokens").dtype == np.float16
    assert np.array_equal(video.read("tokens"), stored.astype(np.float16))


def test_zarr_reads_every_array_to_the_bit(store):
    video = store.video("a")
    group = zarr.open_group(store.path / "tokens.zarr", mode="r")[video.commit.path]
    codes, scale = video.read_codes()
    ours = read_all(store, "a") | {"tokens": codes, "scale": scale}
    theirs = {name: array[:] for name, array in group.arrays()}
    assert theirs.keys() == ours.keys()
    for name, values in ours.items():
        assert theirs[name].dtype == values.dtype and np.array_equal(theirs[name], values), name
    assert group["tokens"].fill_value == -128 and np.isnan(group["pool1"].fill_value)
    assert group["tokens"].shards == (16, 6, 6, CHANNELS) and group["tokens"].chunks == (1, 6, 6, CHANNELS)
    assert group.attrs["id"] == "a" and group.attrs["fps"] == "25"


def test_the_pyramid_is_of_the_tokens_before_quantisation(store):
    tokens = simulated_tokens(NUM_STEPS)
    for level, size in (("pool1", 1), ("pool2", 2), ("pool4", 4)):
        expected = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(tokens).permute(0, 3, 1, 2), size)
        stored = store.video("a").read(level, out=np.empty((NUM_STEPS, size, size, CHANNELS), np.float32))
        assert np.allclose(stored, expected.permute(0, 2, 3, 1).numpy(), rtol=1e-3, atol=1e-3)


def test_the_channel_statistics_are_those_of_the_first_clip(store):
    clip = simulated_tokens(NUM_STEPS)[:8]
    assert np.allclose(store.video("a").mean, clip.mean((0, 1, 2)), rtol=1e-5, atol=1e-5)
    assert np.allclose(store.video("a").std, clip.std((0, 1, 2)), rtol=1e-5)


def test_any_cut_into_appends_gives_the_same_files(store):
    tokens = simulated_tokens(NUM_STEPS)
    expected = store.commit_of("a").generation_files
    for number, cuts in enumerate([(1, 2, 3), (8,), (7, 30), tuple(range(1, NUM_STEPS))]):
        other = small_store(store.path.parent / str(number))
        add_video(other, "a", tokens, cuts=cuts)
        assert other.commit_of("a").generation_files == expected


def test_tensors_are_taken_as_arrays_are(store, tmp_path):
    tokens = simulated_tokens(NUM_STEPS)
    other = small_store(tmp_path / "other")
    add_video(other, "a", torch.from_numpy(tokens))
    assert other.commit_of("a").generation_files == store.commit_of("a").generation_files
    out = torch.empty((2, 6, 6, CHANNELS))
    assert store.video("a").read("tokens", 3, 5, out=out) is out
    assert np.array_equal(out.half().numpy(), store.video("a").read("tokens", 3, 5))


def test_windows_agree_with_the_whole(store):
    video = store.video("a")
    whole = read_all(store, "a")
    codes, scale = video.read_codes()
    for start, stop in [(0, 1), (15, 17), (5, 36), (36, 37), (0, 37), (9, 9)]:
        for level in video.levels:
            assert np.array_equal(video.read(level, start, stop), whole[level][start:stop])
        window = np.empty((stop - start, 6, 6, CHANNELS), np.int8), np.empty((stop - start, 6, 6), np.float16)
        assert video.read_codes(start, stop, out=window)[0] is window[0]
        assert np.array_equal(window[0], codes[start:stop]) and np.array_equal(window[1], scale[start:stop])


def test_a_buffer_may_be_a_part_of_a_larger_one(store):
    batch = np.zeros((2, 4, 6, 6, CHANNELS + 5), np.float16)
    store.video("a").read("tokens", 2, 6, out=batch[1, ..., :CHANNELS])
    assert np.array_equal(batch[1, ..., :CHANNELS], store.video("a").read("tokens", 2, 6)) and not batch[0].any()


def test_the_description_comes_back(store):
    video = store.video("a")
    assert (video.num_frames, video.num_steps, video.width, video.height, video.grid) == (74, 37, 64, 48, (6, 6))
    assert video.fps == 25 and not video.damaged and video.levels == ("tokens", "pool1", "pool2", "pool4")
    assert video.frames.dtype == np.int32 and video.frames[5].tolist() == [10, 11]
    assert np.allclose(video.frame_time_s, np.arange(74) / 25)
    assert video.time_grid.num_steps == 37 and video.space_grid == space_grid()
    assert video.meta.source.name == "a.mp4" and video.valid("pool4").all()


def test_info_is_what_the_command_prints(store):
    add_video(store, "Ü b", simulated_tokens(5), damage=Damage(num_errors=2, gaps=((3, 4),), messages=("bad packet",)))
    info = json.loads(json.dumps(store.info()))
    assert info["fingerprint"] == small_encoding().fingerprint and info["encoding"] == small_encoding().to_dict()
    assert list(info["videos"]) == ["a", "Ü b"]
    group = store.path / "tokens.zarr" / store.commit_of("Ü b").path
    num_bytes = sum(path.stat().st_size for path in group.rglob("*") if path.is_file())
    assert info["videos"]["Ü b"] == {
        "num_frames": 10, "width": 64, "height": 48, "steps": 5, "grid": [6, 6], "bytes": num_bytes, "damaged": True,
    }
    assert store.video("Ü b").meta.damage.messages == ("bad packet",)
    assert open_store(store.path).info() == store.info()


def test_float16_is_the_other_number_format(tmp_path):
    store = small_store(tmp_path / "store", Storage(number_format="float16", shard_steps=16))
    tokens = simulated_tokens(20)
    add_video(store, "a", tokens)
    assert np.array_equal(store.video("a").read("tokens"), tokens.astype(np.float16))
    array = zarr.open_group(store.path / "tokens.zarr", mode="r")[store.commit_of("a").path + "/tokens"]
    assert np.array_equal(array[:], tokens.astype(np.float16)) and np.isnan(array.fill_value)
    with pytest.raises(StoreError, match="video 'a' has no int8 codes"):
        store.video("a").read_codes()


def test_letterbox_bars_stay_out_of_the_pyramid(tmp_path):
    store = small_store(tmp_path / "store")
    tokens = simulated_tokens(4)
    spaces = space_grid(fit="letterbox", width=96, height=48)
    tokens[:, ~spaces.valid_HW] = 1000
    with store.writer("a", (6, 6), spaces.valid_HW) as writer:
        writer.append(tokens, np.arange(8).reshape(4, 2), np.zeros(4), np.full(4, 7))
        writer.commit(video_meta("a", 8, spaces), np.arange(8) / 25)
    expected = tokens[:, spaces.valid_HW].mean(1)
    assert np.allclose(store.video("a").read("pool1")[:, 0, 0], expected, rtol=1e-3, atol=1e-2)
    assert store.video("a").valid("pool4").sum() < 16


def test_few_levels_are_enough(tmp_path):
    store = small_store(tmp_path / "store", Storage(levels=("pool4",)))
    add_video(store, "a", simulated_tokens(4))
    assert store.video("a").read("pool4").shape == (4, 4, 4, CHANNELS)
    with pytest.raises(UnknownNameError, match="video 'a': expected a level of pool4, got 'tokens'"):
        store.video("a").read("tokens")


def test_the_first_commit_wins(store):
    before = store.commit_of("a")
    assert not add_video(store, "a", simulated_tokens(NUM_STEPS, seed=1))
    assert store.commit_of("a") == before
    generations = store.path / "tokens.zarr/videos/a"
    assert [path.name for path in generations.iterdir() if path.is_dir()] == [before.path.split("/")[-1]]
    assert not list((store.path / "staging").iterdir())


def test_replacing_keeps_the_old_generation_for_its_readers(store):
    old = store.video("a")
    old_tokens = old.read("tokens", 0, 4)
    assert add_video(store, "a", simulated_tokens(NUM_STEPS, seed=1), replace=True)
    assert np.array_equal(old.read("tokens", 0, 4), old_tokens)
    new = store.video("a")
    assert new is not old and not np.array_equal(new.read("tokens", 0, 4), old_tokens)
    assert np.array_equal(old.read("pool1", 20, 30), old.read("pool1")[20:30])
    assert not list((store.path / "claims").iterdir())


def test_a_video_that_is_being_replaced_is_not_replaced_twice(store):
    with store.claim("a"), pytest.raises(StoreError, match="video 'a' in .* is being written by another process"):
        store.writer("a", (6, 6), replace=True)
    with store.claim("a") as claim, store.writer("a", (6, 6), replace=True, claim=claim):
        pass


def test_a_writer_that_is_refused_gives_its_claim_back(store):
    for _ in range(2):
        with pytest.raises(StoreError, match="no space left for video 'a'"):
            store.writer("a", (6, 6), num_steps=10**15, replace=True)
    assert not list((store.path / "claims").iterdir())


def test_an_open_store_does_not_depend_on_the_working_folder(store, monkeypatch, tmp_path):
    monkeypatch.chdir(store.path.parent)
    opened = open_store("store")
    monkeypatch.chdir("/")
    assert opened.video("a").frames.shape == (NUM_STEPS, 2)


def test_writing_renews_the_claim(store, monkeypatch):
    with store.claim("b") as claim, store.writer("b", (6, 6), claim=claim) as writer:
        os.utime(store.path / claim.name, (0, 0))
        now = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: now() + RENEW_EVERY_S)
        writer.append(simulated_tokens(1), np.zeros((1, 2)), np.zeros(1), np.ones(1))
        assert store.place.entry(claim.name).modified_s > 0 and store.claim("b") is None
    assert not list((store.path / "claims").iterdir())


def test_leaving_without_a_commit_leaves_nothing(store):
    tokens = simulated_tokens(20)
    with pytest.raises(KeyboardInterrupt), store.writer("b", (6, 6)) as writer:
        writer.append(tokens, np.arange(40).reshape(20, 2), np.zeros(20), np.full(20, 39))
        raise KeyboardInterrupt
    assert "b" not in store and store.video_ids() == ["a"]
    assert not list((store.path / "staging").iterdir()) and not (store.path / "tokens.zarr/videos/b").exists()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_token_that_is_not_finite_fails_the_video(store, wrong):
    tokens = simulated_tokens(20)
    tokens[13, 2, 3, 4] = wrong
    with pytest.raises(StoreError, match="video 'b': step 13 has a token that is not finite"):
        add_video(store, "b", tokens, cuts=(10,))
    assert "b" not in store


def test_what_does_not_fit_is_refused(store):
    tokens, frames, seen = simulated_tokens(4), np.arange(8).reshape(4, 2), (np.zeros(4), np.full(4, 7))
    times = np.arange(8) / 25

    def attempt(message, *, appended=(tokens, frames, *seen), meta=None, times=times, grid=(6, 6), valid=None):
        with pytest.raises(StoreError, match=message), store.writer("b", grid, valid) as writer:
            writer.append(*appended)
            writer.commit(meta or video_meta("b", 8, space_grid()), times)
        assert "b" not in store

    attempt(r"tokens: expected shape \(4, 6, 6, 24\), got \(4, 6, 5, 24\)", appended=(tokens[:, :, :5], frames, *seen))
    attempt(r"frames: expected shape \(4, 2\), got \(4, 1\)", appended=(tokens, frames[:, :1], *seen))
    attempt(r"last_seen: expected shape \(4,\), got \(3,\)", appended=(tokens, frames, seen[0], seen[1][:3]))
    attempt("steps: expected at least one, got none", appended=(tokens[:0], frames[:0], seen[0][:0], seen[1][:0]))
    attempt("step frames: expected numbers in 0..7, got 1..8", appended=(tokens, frames + 1, *seen))
    attempt("frames seen: expected each step's own frames", appended=(tokens, frames, seen[0], np.full(4, 5)))
    attempt(r"frame_time_s: expected shape \(8,\), got \(7,\)", times=times[:7])
    attempt("frame_time_s: expected finite times that start at 0", times=times + 1)
    attempt("frame_time_s: expected finite times that start at 0 and never decrease", times=times[[0, 2, 1, 3, 4, 5, 6, 7]])
    attempt("description: expected id 'b' and grid", meta=video_meta("c", 8, space_grid()))
    attempt("valid_HW: expected the cells that the space grid calls valid", valid=np.eye(6, dtype=bool))
    attempt(r"expected valid_HW of shape \(6, 6\), got \(5, 6\)", valid=np.ones((5, 6), bool))


def test_reading_says_what_does_not_fit(store):
    video = store.video("a")
    with pytest.raises(UnknownNameError, match="expected a level of tokens, pool1, pool2, pool4, got 'pool3'. Did you mean 'pool"):
        video.read("pool3")
    for start, stop in [(-1, 3), (3, 2), (0, 38), (38, 38)]:
        with pytest.raises(IndexError, match=rf"expected steps within 0..37, got {start}..{stop}"):
            video.read("tokens", start, stop)
    with pytest.raises(ValueError, match=r"out: expected a \(2, 6, 6, 24\) float16 or float32 array, got \(3, 6, 6, 24\) float32"):
        video.read("tokens", 0, 2, out=np.empty((3, 6, 6, CHANNELS), np.float32))
    for codes, scale in ((np.empty((2, 6, 6, 1), np.int8), np.empty((2, 6, 6), np.float16)), (np.empty((2, 6, 6, CHANNELS)), np.empty((2, 6, 6)))):
        with pytest.raises(ValueError, match=r"out: expected a \(2, 6, 6, 24\) int8 array, got "):
            video.read_codes(0, 2, (codes, scale))


def test_memory_in_any_order_is_filled(store):
    video = store.video("a")
    codes, scale = video.read_codes(0, 5)
    swapped = np.empty((6, 5, 6, CHANNELS), np.int8).swapaxes(0, 1), np.empty((6, 5, 6), np.float16).swapaxes(0, 1)
    assert video.read_codes(0, 5, swapped) is swapped
    assert np.array_equal(swapped[0], codes) and np.array_equal(swapped[1], scale)
    tensors = torch.empty(5, 6, 6, CHANNELS, dtype=torch.int8), torch.empty(5, 6, 6, dtype=torch.float16)
    video.read_codes(0, 5, tensors)
    assert np.array_equal(tensors[0], codes) and np.array_equal(tensors[1], scale)
    values = np.empty((6, 5, 6, CHANNELS), np.float32).swapaxes(0, 1)
    assert np.array_equal(video.read("tokens", 0, 5, values), video.read("tokens", 0, 5, np.empty((5, 6, 6, CHANNELS), np.float32)))


@pytest.mark.parametrize("level", ["tokens", "pool4"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_part_of_the_grid_is_that_part_of_the_whole(store, level, dtype):
    video = store.video("a")
    part = slice(1, 3), slice(0, 4, 2)
    whole = video.read(level, 3, 20, np.empty((17, *video.shape(level)[1:]), dtype))
    assert np.array_equal(video.read(level, 3, 20, np.empty((17, 2, 2, CHANNELS), dtype), part=part), whole[:, *part])
    codes, scale = video.read_codes(3, 20, part=part)
    assert np.array_equal(codes, video.read_codes(3, 20)[0][:, *part]) and np.array_equal(scale, video.read_codes(3, 20)[1][:, *part])


@pytest.mark.parametrize("number_format", ["int8", "float16"])
@pytest.mark.parametrize("verify", ["first", "always", "never"])
@pytest.mark.parametrize("part", [None, (slice(1, 3), slice(0, 4, 2))])
def test_standardised_tokens(tmp_path, number_format, verify, part):
    written = small_store(tmp_path / "s", Storage(number_format=number_format, shard_steps=16))
    add_video(written, "a", simulated_tokens(NUM_STEPS))
    video = open_store(tmp_path / "s", verify=verify).video("a")
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=CHANNELS), rng.uniform(0.5, 2, CHANNELS)
    for level in ("tokens", "pool4"):
        # Across shards, within one, and read before, which takes another way.
        for start, stop in [(3, 20), (4, 15), (4, 15), (7, 7)]:
            raw = video.read(level, start, stop, np.empty((stop - start, *video.shape(level)[1:]), np.float32))
            expected = ((raw - mean) / std)[(slice(None), *(part or ()))]
            found = video.read(level, start, stop, part=part, standard=(mean, std))
            assert found.dtype == np.float32 and np.allclose(found, expected, rtol=1e-4, atol=1e-3)
            out = torch.empty(expected.shape)
            assert video.read(level, start, stop, out, part=part, standard=(torch.tensor(mean), torch.tensor(std))) is out
            assert np.array_equal(out, found)


def test_a_standard_that_does_not_fit_is_refused(store):
    video = store.video("a")
    for mean, std in ((np.zeros(3), np.ones(3)), (np.zeros(CHANNELS), np.zeros(CHANNELS)), (np.zeros(CHANNELS), np.full(CHANNELS, np.nan))):
        with pytest.raises(ValueError, match=r"standard: expected a mean and a positive std of shape \(24,\), got "):
            video.read("tokens", 0, 2, standard=(mean, std))
    with pytest.raises(ValueError, match="out: expected a .* float32 array, got .* float16"):
        video.read("tokens", 0, 1, np.empty((1, 6, 6, CHANNELS), np.float16), standard=(np.zeros(CHANNELS), np.ones(CHANNELS)))


def test_what_is_given_out_is_the_callers_own(store):
    video = store.video("a")
    for level in video.levels:
        for dtype in (np.float16, np.float32):
            before = video.read(level, 0, 5, np.empty((5, *video.shape(level)[1:]), dtype))
            video.read(level, 0, 5, out := np.empty_like(before))
            out[:] = 0
            assert np.array_equal(video.read(level, 0, 5, np.empty_like(before)), before)


def test_asking_ahead_is_checked_like_reading(store):
    video = store.video("a")
    for level in video.levels:
        video.will_read(level, 0, video.num_steps)
    with pytest.raises(UnknownNameError, match="expected a level"):
        video.will_read("pool3", 0, 1)
    with pytest.raises(IndexError, match="expected steps within 0..37, got 30..38"):
        video.will_read("pool1", 30, 38)


def test_a_store_of_another_encoding_is_refused_with_both_values(store):
    with pytest.raises(StoreMismatchError) as caught:
        create_or_open_store(store.path, small_encoding(overlap=8, fit="crop"))
    message = str(caught.value)
    assert "fit: 'stretch' != 'crop'" in message and "overlap: 0 != 8" in message and str(store.path) in message
    assert open_store(store.path).encoding == small_encoding()


def test_what_is_no_store_is_said(tmp_path):
    with pytest.raises(StoreError, match="nowhere does not exist: there is no .*zarr.json; `cli.py extract` makes one"):
        open_store(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").write_bytes(b"cat")
    with pytest.raises(StoreError, match="photos is not a store"):
        open_store(tmp_path / "photos")
    with pytest.raises(StoreError, match="photos exists and is not a store; choose another path"):
        create_or_open_store(tmp_path / "photos", small_encoding())
    with pytest.raises(StoreError, match="is not a store"):
        open_store(tmp_path / "photos/cat.jpg")
    with pytest.raises(StoreError, match="ftp://bucket/store: expected a folder, s3://BUCKET/NAME or gs://BUCKET/NAME"):
        open_store("ftp://bucket/store")


def test_a_creation_that_was_interrupted_is_finished(tmp_path):
    for name in ("staging", "commits", "tokens.zarr"):
        (tmp_path / "store" / name).mkdir(parents=True)
    assert small_store(tmp_path / "store").video_ids() == []


def test_a_damaged_root_is_said(store):
    file = store.path / "tokens.zarr/zarr.json"
    raw = file.read_text()
    for broken, message in [
        (raw.replace('"overlap": 0', '"overlap": 8'), "its encoding has the fingerprint"),
        (raw[:-30], "is not the root of a token store, or is damaged"),
        (raw.replace('"version": 1', '"version": 2'), "has format version 2, this program reads 1"),
    ]:
        assert broken != raw
        file.write_text(broken)
        with pytest.raises(StoreError, match=message):
            open_store(store.path)


def test_an_unknown_video_is_answered_with_the_nearest(store):
    add_video(store, "video_12", simulated_tokens(3))
    with pytest.raises(StoreError, match="has no video 'video_13'; it has 2, .* Did you mean 'video_12'?"):
        store.video("video_13")


def test_a_missing_or_cut_file_is_named_and_other_videos_go_on(store):
    add_video(store, "b", simulated_tokens(3))
    shard = store.path / "tokens.zarr" / store.commit_of("a").path / "pool2/c/1/0/0/0"
    raw = shard.read_bytes()
    shard.write_bytes(raw[:-1])
    with pytest.raises(CorruptStoreError, match=f"video 'a': .*pool2/c/1/0/0/0: expected {len(raw)} bytes, got {len(raw) - 1}"):
        open_store(store.path).video("a")
    shard.unlink()
    with pytest.raises(CorruptStoreError, match="video 'a': .*pool2/c/1/0/0/0: expected .* bytes, got no such file"):
        open_store(store.path).video("a")
    assert open_store(store.path).video("b").read("pool2").shape == (3, 2, 2, CHANNELS)


@pytest.mark.parametrize(("file", "read"), [
    ("tokens/c/1/0/0/0", lambda video: video.read("tokens", 16, 18)),
    ("scale/c/1/0/0", lambda video: video.read_codes(16, 18)),
    ("pool4/c/1/0/0/0", lambda video: video.read("pool4", 16, 18)),
    ("mean/c/0", lambda video: video.read("tokens", 0, 1)),
    ("frames/c/0/0", lambda video: video.frames),
    ("frame_time_s/c/0", lambda video: video.frame_time_s),
    ("tokens/zarr.json", lambda video: video.read("tokens", 0, 1)),
])
def test_a_changed_bit_raises_where_it_is_touched(store, file, read):
    path = store.path / "tokens.zarr" / store.commit_of("a").path / file
    raw = bytearray(path.read_bytes())
    raw[9] ^= 4
    path.write_bytes(raw)
    video = open_store(store.path).video("a")
    with pytest.raises(CorruptStoreError) as caught:
        read(video)
    message = str(caught.value)
    assert "video 'a'" in message and file.split("/")[0] in message and str(path) in message


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_disk_that_does_not_answer_is_no_damage(store, monkeypatch, number):
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    video = store.video("a")
    with monkeypatch.context() as patched:
        patched.setattr(MappedFile, "of", refuse)
        patched.setattr(Path, "read_bytes", refuse)
        for read in (lambda: video.read("pool1"), lambda: video.frames):
            with pytest.raises(StoreError, match=f"video 'a': cannot read .*{os.strerror(number)}; .*not damage") as caught:
                read()
            assert not isinstance(caught.value, CorruptStoreError) and caught.value.errno == number
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)
        with pytest.raises(StoreError, match="not damage"):
            StoredVideo(store.place, video.commit)
    assert video.read("pool1").shape == (NUM_STEPS, 1, 1, CHANNELS)


def test_a_changed_bit_in_the_group_raises_at_opening(store):
    path = store.path / "tokens.zarr" / store.commit_of("a").path / "zarr.json"
    path.write_bytes(path.read_bytes().replace(b'"width": 64', b'"width": 65'))
    with pytest.raises(CorruptStoreError, match="video 'a': .*zarr.json has crc32c .*, its commit says"):
        open_store(store.path).video("a")


def test_a_damaged_commit_makes_the_video_absent(store):
    file = store.path / "commits/a.json"
    file.write_bytes(file.read_bytes()[:-20])
    reopened = open_store(store.path)
    assert "a" not in reopened and reopened.video_ids() == []
    with pytest.raises(CorruptStoreError, match="commits/a.json is damaged: it is cut off; its video counts as absent"):
        reopened.video("a")
    assert add_video(reopened, "a", simulated_tokens(NUM_STEPS)) and "a" in reopened


def test_a_temporary_store_gives_the_same_numbers_and_goes_away(store, tmp_path):
    with temporary_store(small_encoding(), parent=tmp_path) as temporary:
        path = temporary.path
        add_video(temporary, "a", simulated_tokens(NUM_STEPS))
        for name, values in read_all(temporary, "a").items():
            assert np.array_equal(values, read_all(store, "a")[name])
    assert not path.exists()


def test_many_videos_need_few_descriptors(tmp_path):
    store = small_store(tmp_path / "store")
    for number in range(12):
        add_video(store, f"v{number}", simulated_tokens(2, seed=number))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for number in range(12):
        store.video(f"v{number}").frames
        store.video(f"v{number}").frame_time_s
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_the_door_is_the_package():
    assert features.open_store is open_store
    with pytest.raises(AttributeError, match="no attribute 'close_store'"):
        features.close_store
