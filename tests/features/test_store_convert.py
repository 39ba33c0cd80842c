"""A converted store holds what the storage asked for, and says what the conversion did to the values."""

import json

import numpy as np
import pytest
import zarr

from features.schema import Storage
from features.store import open_store
from features.store_convert import StorageChange, convert_store
from features.store_copy import subset_store
from features.verify import verify_store
from tests.features.store_builder import add_video, read_all, simulated_tokens, small_store
from vjepa_loc.errors import ConfigError, CorruptStoreError, StoreError

STEPS = 40
COPIED = {"mean", "std", "frames", "first_frame_seen", "last_frame_seen", "frame_time_s"}


@pytest.fixture(scope="module")
def tokens():
    return simulated_tokens(STEPS, seed=3)


@pytest.fixture
def make_store(tmp_path, tokens):
    """`make_store("name", Storage(...))`: one letterboxed video "Ä" of 40 steps."""

    def make(name, **storage):
        store = small_store(tmp_path / name, Storage(shard_steps=16, **storage))
        add_video(store, "Ä", tokens, fit="letterbox", cuts=(11,))
        return store

    return make


def convert(store, name, **change):
    report = convert_store(store, store.path.parent / name, StorageChange(**change))
    assert report.copied == ("Ä",)
    converted = open_store(store.path.parent / name)
    assert converted.verify().ok
    return converted


def array_files(store, *names):
    """name below the generation -> bytes, for the files of the given arrays."""
    commit = store.commit_of("Ä")
    folder = store.path / "tokens.zarr" / commit.path
    return {name: (folder / name).read_bytes() for name in commit.generation_files if name.partition("/")[0] in names}


def equal(one, other):
    assert one.keys() == other.keys()
    return all(np.array_equal(one[name], other[name]) for name in one)


def test_compression_keeps_every_value_and_can_be_taken_back(make_store):
    store = make_store("store")
    small = convert(store, "small", compression="zstd")
    assert small.video("Ä").storage.compression == "zstd"
    assert equal(read_all(small, "Ä"), read_all(store, "Ä"))
    assert array_files(small, *COPIED, "zarr.json") == array_files(store, *COPIED, "zarr.json")
    back = convert(small, "back", compression="none")
    assert back.commit_of("Ä").generation_files == store.commit_of("Ä").generation_files


def test_the_writer_compresses_as_a_conversion_does(make_store):
    written = make_store("written", compression="zstd")
    converted = convert(make_store("store"), "small", compression="zstd")
    assert written.commit_of("Ä").generation_files == converted.commit_of("Ä").generation_files
    assert json.loads(written.commit_of("Ä").to_bytes())["storage"]["compression"] == "zstd"


def test_zarr_reads_what_is_compressed(make_store):
    store = make_store("store", compression="zstd")
    group = zarr.open_group(store.path / "tokens.zarr", mode="r")[store.commit_of("Ä").path]
    video = store.video("Ä")
    codes, scale = video.read_codes()
    assert np.array_equal(group["tokens"][:], codes) and np.array_equal(group["scale"][:], scale)
    for level in ("pool1", "pool2", "pool4"):
        assert np.array_equal(group[level][:], video.read(level))


def test_shards_of_another_size(make_store):
    store = make_store("store")
    resharded = convert(store, "resharded", shard_steps=7)
    assert equal(read_all(resharded, "Ä"), read_all(store, "Ä"))
    assert len(array_files(resharded, "tokens")) == 1 + -(-STEPS // 7)


def test_int8_becomes_the_float16_that_reading_gives(make_store):
    store = make_store("store")
    wide = convert(store, "wide", number_format="float16")
    video = wide.video("Ä")
    assert video.storage.number_format == "float16" and video.meta.earlier_formats == ("int8",)
    assert equal(read_all(wide, "Ä"), read_all(store, "Ä"))
    assert array_files(wide, *COPIED, "pool1", "pool4") == array_files(store, *COPIED, "pool1", "pool4")
    assert not array_files(wide, "scale")
    assert "earlier_formats" not in json.loads((store.video("Ä").group_path / "zarr.json").read_text())["attributes"]


def test_float16_is_quantised_as_the_writer_does(make_store, tokens):
    wide, store = make_store("wide", number_format="float16"), make_store("store")
    small = convert(wide, "small", number_format="int8")
    assert array_files(small, *COPIED, "pool1", "pool2", "pool4") == array_files(store, *COPIED, "pool1", "pool2", "pool4")
    # Only the rounding to float16 lies between the two.
    codes, written = (s.video("Ä").read_codes()[0].astype(int) for s in (small, store))
    assert np.abs(codes - written).max() <= 1 and (codes != written).mean() < 0.05
    assert small.video("Ä").meta.earlier_formats == ("float16",)
    again = convert(small, "again", number_format="float16")
    assert again.video("Ä").meta.earlier_formats == ("float16", "int8")


def test_missing_levels_are_made_from_the_stored_tokens(make_store):
    whole, few = make_store("whole"), make_store("few", levels=("tokens", "pool2"))
    full = convert(few, "full", levels=("tokens", "pool2", "pool4", "pool1"))
    video = full.video("Ä")
    assert video.levels == ("tokens", "pool2", "pool4", "pool1")
    assert video.meta.pools_of_stored_tokens == ("pool4", "pool1")
    assert array_files(full, "tokens", "scale", "pool2", *COPIED) == array_files(few, "tokens", "scale", "pool2", *COPIED)
    valid = video.space_grid.valid_HW
    assert not valid.all()
    decoded = video.read("tokens", out=np.empty(video.shape(), np.float32))
    assert np.allclose(video.read("pool1")[:, 0, 0], decoded[:, valid].mean(1), rtol=1e-3, atol=1e-2)
    assert np.allclose(video.read("pool4"), whole.video("Ä").read("pool4"), rtol=0.05, atol=0.3)


def test_levels_can_be_left_out_while_another_thing_changes(make_store):
    store = make_store("store")
    small = convert(store, "small", levels=("pool4", "pool1"), compression="zstd")
    assert small.video("Ä").levels == ("pool4", "pool1") and small.video("Ä").meta == store.video("Ä").meta
    assert not array_files(small, "tokens", "scale", "pool2")
    assert np.array_equal(small.video("Ä").read("pool4"), store.video("Ä").read("pool4"))


def test_what_was_left_out_cannot_be_brought_back(make_store, tmp_path):
    subset_store(make_store("store"), tmp_path / "pools", ["pool4"])
    pools = open_store(tmp_path / "pools")
    for levels in (("tokens",), ("pool4", "pool1")):
        missing = levels[-1]
        with pytest.raises(StoreError, match=f"video 'Ä' has no level {missing} and no tokens to make it from; it stores pool4"):
            convert_store(pools, tmp_path / "x", StorageChange(levels=levels))


def test_a_conversion_is_continued(make_store, tmp_path, tokens, monkeypatch):
    store = make_store("store")
    add_video(store, "b", tokens[:9])
    change = StorageChange(compression="zstd")
    assert convert_store(store, tmp_path / "x", change, ["b"]).copied == ("b",)
    report = convert_store(store, tmp_path / "x", change)
    assert (report.copied, report.present, report.different) == (("Ä",), ("b",), ())
    other = convert_store(store, tmp_path / "x", StorageChange(number_format="float16"), ["b"])
    assert other.different == ("b",) and open_store(tmp_path / "x").video("b").storage.number_format == "int8"
    add_video(store, "b", tokens[:12], replace=True)
    assert convert_store(store, tmp_path / "x", change).different == ("b",)


def test_an_interrupted_conversion_leaves_nothing(make_store, tmp_path, monkeypatch):
    store = make_store("store")
    monkeypatch.setattr("features.store_convert.quantise", lambda *values: (_ for _ in ()).throw(KeyboardInterrupt))
    wide = convert(store, "wide", number_format="float16")
    with pytest.raises(KeyboardInterrupt):
        convert_store(wide, tmp_path / "x", StorageChange(number_format="int8"))
    assert open_store(tmp_path / "x").video_ids() == [] and not list((tmp_path / "x/staging").iterdir())


@pytest.mark.parametrize(("change", "array"), [({"compression": "zstd"}, "tokens"), ({"compression": "zstd"}, "std"), ({"shard_steps": 5}, "pool2")])
def test_damage_is_not_converted(make_store, tmp_path, change, array):
    store = make_store("store")
    file = next(path for path in (store.video("Ä").group_path / array / "c").rglob("*") if path.is_file())
    raw = bytearray(file.read_bytes())
    raw[5] ^= 4
    file.write_bytes(raw)
    with pytest.raises(CorruptStoreError, match=array):
        convert_store(open_store(store.path), tmp_path / "x", StorageChange(**change))
    assert open_store(tmp_path / "x").video_ids() == []


@pytest.mark.parametrize(("change", "array"), [
    ({"shard_steps": 5}, "pool2"), ({"number_format": "float16"}, "tokens"), ({"number_format": "float16"}, "scale"),
    ({"compression": "zstd"}, "mean"), ({"levels": ("pool1",), "shard_steps": 16}, None),
])
def test_a_file_of_another_video_is_not_converted(make_store, tmp_path, change, array):
    store, other = make_store("store"), small_store(tmp_path / "other")
    add_video(other, "Ä", simulated_tokens(STEPS, seed=8), fit="letterbox")
    names = [array] if array else ["tokens", "pool4"]
    for name in names:
        for file in (path for path in (other.video("Ä").group_path / name / "c").rglob("*") if path.is_file()):
            (store.video("Ä").group_path / file.relative_to(other.video("Ä").group_path)).write_bytes(file.read_bytes())
    if array is None:
        # What is not read may be wrong.
        assert convert_store(open_store(store.path), tmp_path / "x", StorageChange(**change)).copied == ("Ä",)
        return
    with pytest.raises(CorruptStoreError, match=f"{array}.*expected chunks whose checksums have the crc32c|{array}.*not the one that was committed"):
        convert_store(open_store(store.path), tmp_path / "x", StorageChange(**change))
    assert open_store(tmp_path / "x").video_ids() == []


def test_every_flipped_bit_of_a_compressed_store_is_found(make_store):
    store = make_store("store", compression="zstd")
    files = sorted(path for folder in ("tokens.zarr", "commits") for path in (store.path / folder).rglob("*") if path.is_file())
    rng = np.random.default_rng(0)
    for file in [files[index] for index in rng.choice(len(files), 25, replace=False)]:
        raw = file.read_bytes()
        damaged = bytearray(raw)
        damaged[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        report = verify_store(store.path)
        assert any(problem.file == str(file.relative_to(store.path)) for problem in report.problems), file
        file.write_bytes(raw)
    assert verify_store(store.path).ok


def test_a_value_beyond_float16_is_refused(tmp_path, tokens):
    store = small_store(tmp_path / "store", Storage(levels=("tokens",)))
    large = tokens.copy()
    large[20] *= 3e3
    add_video(store, "Ä", large)
    with pytest.raises(StoreError, match="array 'tokens': a value of the steps from 16 is too large for float16"):
        convert_store(store, tmp_path / "x", StorageChange(number_format="float16"))


def test_changes_that_make_no_sense_are_refused(make_store, tmp_path):
    store = make_store("store")
    for change, message in [
        ({"levels": ("pool3",)}, "expected levels of tokens, pool1, pool2, pool4, got 'pool3'. Did you mean"),
        ({"number_format": "int4"}, "Storage.number_format: Input should be 'int8' or 'float16', got 'int4'"),
        ({"compression": "gzip"}, "Storage.compression: Input should be 'none' or 'zstd', got 'gzip'"),
        ({"shard_steps": 0}, "Storage.shard_steps: Input should be greater than 0, got 0"),
        ({}, "nothing to change"),
    ]:
        with pytest.raises(ConfigError, match=message):
            convert_store(store, tmp_path / "x", StorageChange(**change))
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match="source and target at once"):
        convert_store(store, store.path, StorageChange(compression="zstd"))


def test_conversions_go_to_a_url_and_back(make_store, tmp_path, service, url):
    store = make_store("store")
    assert convert_store(store, url, StorageChange(compression="zstd")).copied == ("Ä",)
    remote = open_store(url)
    assert remote.verify().ok and remote.video("Ä").storage.compression == "zstd"
    assert convert_store(store, url, StorageChange(compression="zstd")).present == ("Ä",)
    assert convert_store(remote, tmp_path / "back", StorageChange(compression="none")).copied == ("Ä",)
    assert open_store(tmp_path / "back").commit_of("Ä").generation_files == store.commit_of("Ä").generation_files
    assert subset_store(remote, tmp_path / "small", ["pool4"]).copied == ("Ä",)
    assert np.array_equal(open_store(tmp_path / "small").video("Ä").read("pool4"), store.video("Ä").read("pool4"))
