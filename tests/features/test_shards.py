"""Our shard writer and reader against zarr-python, and what a damaged shard says."""

import gc
import os
import time

import google_crc32c
import numpy as np
import pytest
import zarr

from features import array_files, step_array
from features.array_files import ArrayFiles
from features.checksum import CRC_RESIDUE, crc32c, crc32c_hex, joined_crc32c, with_crc32c
from features.commits import FileStamp
from features.mapped_files import MappedFiles
from features.places.local import LocalPlace
from features.shards import ShardWriter
from features.step_array import ShardedArray, ZarrArray, has_hole
from features.zarr_layout import ArraySpec, array_metadata, metadata_bytes, spec_of
from vjepa_loc.errors import CorruptStoreError

DIMENSIONS = ("step", "row", "column", "channel")


def steps(num_steps, dtype="int8", seed=0):
    values = np.random.default_rng(seed).integers(-127, 128, (num_steps, 3, 2, 5))
    return values.astype(dtype)


def written(folder, values, shard_steps=8, cuts=()):
    spec = ArraySpec(values.shape, values.dtype.name, DIMENSIONS, shard_steps)
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(folder / "x", spec)
    for part in np.split(values, cuts):
        writer.append(part)
    stamps = writer.close()
    (folder / "x" / "zarr.json").write_bytes(metadata_bytes(array_metadata(spec)))
    return spec, {f"x/{name}": stamp for name, stamp in stamps.items()}


def reader(folder, spec, stamps, verify="first"):
    return ShardedArray(ArrayFiles("v", "x", LocalPlace(folder), ".", stamps), spec, verify)


def read(array, start, stop):
    out = np.empty((stop - start, *array.spec.shape[1:]), array.spec.dtype)
    array.read(start, stop, out)
    return out


@pytest.mark.parametrize("dtype", ["int8", "float16"])
@pytest.mark.parametrize("num_steps", [1, 7, 8, 9, 21])
def test_zarr_reads_what_was_written(tmp_path, num_steps, dtype):
    values = steps(num_steps, dtype)
    spec, stamps = written(tmp_path, values, cuts=(3, 10))
    assert np.array_equal(zarr.open_array(tmp_path / "x", mode="r")[:], values)
    assert np.array_equal(read(reader(tmp_path, spec, stamps), 0, num_steps), values)
    for name, stamp in stamps.items():
        raw = (tmp_path / name).read_bytes()
        checksums = b"".join(raw[end - 4 : end] for end in range(spec.chunk_bytes + 4, len(raw) - spec.index_size + 1, spec.chunk_bytes + 4))
        assert stamp == FileStamp(len(raw), crc32c_hex(raw), crc32c_hex(checksums))
        assert stamp.size == spec.shard_size(int(name.split("/")[2]))


def test_any_cut_into_appends_gives_the_same_bytes(tmp_path):
    values = steps(20)
    _, once = written(tmp_path / "a", values)
    _, often = written(tmp_path / "b", values, cuts=(1, 2, 8, 9, 17))
    assert once == often


def test_a_stamp_tells_one_content_from_another(tmp_path):
    _, one = written(tmp_path / "a", steps(20))
    _, other = written(tmp_path / "b", steps(20, seed=1))
    for name, stamp in one.items():
        # The reason for `chunks`: a crc32c over data with their own crc32c says nothing about the data.
        assert stamp.crc32c == other[name].crc32c and stamp.chunks != other[name].chunks


def test_every_range_of_steps_is_read_across_shards(tmp_path):
    values = steps(19)
    array = reader(tmp_path, *written(tmp_path, values))
    for start in range(20):
        for stop in range(start, 20):
            assert np.array_equal(read(array, start, stop), values[start:stop])


def test_no_steps_may_be_read_anywhere(tmp_path):
    # At the end of 16 steps in shards of 8 there is no shard any more.
    array = reader(tmp_path, *written(tmp_path, steps(16)))
    for step in range(17):
        assert read(array, step, step).shape == (0, 3, 2, 5)
        array.will_read(step, step)


def test_shards_that_zarr_wrote_in_another_order_are_gathered_through_their_index(tmp_path):
    values = steps(19)
    spec = ArraySpec(values.shape, "int8", DIMENSIONS, 8)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_bytes(metadata_bytes(array_metadata(spec)))
    array = zarr.open_array(tmp_path / "x", mode="r+")
    for step in (5, 2, 0, 1, 3, 4, 6, 7, *range(8, 19)):
        array[step] = values[step]
    stamps = {
        str(path.relative_to(tmp_path)): FileStamp(path.stat().st_size, "") for path in (tmp_path / "x/c").rglob("*") if path.is_file()
    }
    assert np.array_equal(read(reader(tmp_path, spec, stamps), 0, 19), values)
    assert np.array_equal(read(reader(tmp_path, spec, stamps), 3, 12), values[3:12])


def test_a_step_that_was_never_written_is_no_zero(tmp_path):
    values = steps(8)
    spec = ArraySpec(values.shape, "int8", DIMENSIONS, 8)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_bytes(metadata_bytes(array_metadata(spec)))
    zarr.open_array(tmp_path / "x", mode="r+")[:5] = values[:5]
    [file] = [path for path in (tmp_path / "x/c").rglob("*") if path.is_file()]
    stamps = {str(file.relative_to(tmp_path)): FileStamp(file.stat().st_size, "")}
    with pytest.raises(CorruptStoreError, match="video 'v', array 'x': the chunk of step 5 is missing in .*c/0/0/0/0"):
        read(reader(tmp_path, spec, stamps), 0, 2)
    with pytest.raises(CorruptStoreError, match="steps 0 to 7 hold a fill value"):
        read(ZarrArray(ArrayFiles("v", "x", LocalPlace(tmp_path), ".", stamps)), 0, 8)


def test_a_stored_hole_raises_in_every_mode(tmp_path):
    values = steps(8)
    values[6, 1, 1, 3] = -128
    spec, stamps = written(tmp_path, values)
    for verify in ("first", "always", "never"):
        array = reader(tmp_path, spec, stamps, verify)
        assert np.array_equal(read(array, 0, 6), values[:6])
        with pytest.raises(CorruptStoreError, match=r"step 6 holds a fill value \(a hole\)"):
            read(array, 5, 8)


@pytest.mark.parametrize(("verify", "raises"), [("first", True), ("always", True), ("never", False)])
def test_a_changed_bit_is_noticed_when_its_chunk_is_touched(tmp_path, verify, raises):
    values = steps(8)
    spec, stamps = written(tmp_path, values)
    file = tmp_path / "x/c/0/0/0/0"
    raw = bytearray(file.read_bytes())
    raw[4 * 34 + 7] ^= 1
    file.write_bytes(raw)
    array = reader(tmp_path, spec, stamps, verify)
    assert np.array_equal(read(array, 0, 4), values[:4])
    if raises:
        with pytest.raises(CorruptStoreError, match="video 'v', array 'x': the chunk of step 4 fails its crc32c in .*c/0/0/0/0"):
            read(array, 4, 5)
    else:
        assert not np.array_equal(read(array, 4, 5), values[4:5])


def test_only_always_looks_twice(tmp_path, monkeypatch):
    spec, stamps = written(tmp_path, steps(8))
    checked = []

    def counting(data):
        checked.append(memoryview(data).nbytes)
        return crc32c(data)

    monkeypatch.setattr(step_array, "crc32c", counting)
    for verify, expected in (("first", 8), ("always", 12), ("never", 0)):
        array = reader(tmp_path, spec, stamps, verify)
        checked.clear()
        read(array, 0, 8)
        read(array, 2, 6)
        assert checked.count(spec.chunk_bytes) == expected


def test_a_damaged_index_is_named(tmp_path):
    spec, stamps = written(tmp_path, steps(8))
    file = tmp_path / "x/c/0/0/0/0"
    raw = bytearray(file.read_bytes())
    raw[-20] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CorruptStoreError, match="the index fails its crc32c"):
        read(reader(tmp_path, spec, stamps), 0, 1)


@pytest.mark.parametrize("cut", [0, 5, 100])
def test_a_file_that_was_cut_while_it_was_open_does_not_kill_the_reader(tmp_path, cut):
    spec, stamps = written(tmp_path, steps(8))
    array = reader(tmp_path, spec, stamps)
    read(array, 0, 8)
    with open(tmp_path / "x/c/0/0/0/0", "r+b") as file:
        file.truncate(cut)
    time.sleep(0.005)
    with pytest.raises(CorruptStoreError, match="unreadable file|expected [0-9]+ bytes, got"):
        read(array, 0, 8)


def test_other_metadata_are_left_to_zarr(tmp_path):
    values = steps(12)
    compressed = zarr.create_array(tmp_path / "x", shape=values.shape, chunks=(1, 3, 2, 5), shards=(8, 3, 2, 5), dtype="int8", fill_value=-128)
    compressed[:] = values
    assert spec_of(compressed.metadata.to_dict()) is None
    assert np.array_equal(read(ZarrArray(ArrayFiles("v", "x", LocalPlace(tmp_path), ".", {})), 2, 11), values[2:11])


def test_few_files_stay_open_and_closed_ones_are_opened_again(tmp_path, monkeypatch):
    files = MappedFiles(max_files=3)
    monkeypatch.setattr(array_files, "FILES", files)
    values = [steps(8, seed=number) for number in range(6)]
    arrays = [reader(tmp_path / str(number), *written(tmp_path / str(number), values[number])) for number in range(6)]
    for _ in range(2):
        for array, expected in zip(arrays, values, strict=True):
            assert np.array_equal(read(array, 2, 7), expected[2:7])
            assert len(files) <= 3


def test_a_file_in_use_is_not_the_one_that_is_closed(tmp_path):
    for number in range(5):
        (tmp_path / str(number)).write_bytes(bytes([number]))
    files = MappedFiles(max_files=2)
    busy, idle = (files.open(str(tmp_path / str(number))) for number in range(2))
    seen, others = idle.data, []
    idle.used = False
    for number in range(2, 5):
        busy.used = True
        others.append(files.open(str(tmp_path / str(number))))
        others[-1].used = False
    assert busy.data is not None and idle.data is None and seen[0] == 1


def test_a_file_that_nobody_reads_any_more_is_let_go(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    array = reader(tmp_path, *written(tmp_path, steps(8)))
    before = descriptors()
    read(array, 0, 8)
    assert descriptors() == before + 1
    del array
    gc.collect()
    assert descriptors() == before


def test_a_part_of_the_grid(tmp_path):
    values = steps(19)
    spec, stamps = written(tmp_path, values)
    for verify in ("first", "always", "never"):
        array = reader(tmp_path, spec, stamps, verify)
        for part in ((slice(1, 3), slice(0, 1)), (slice(None), slice(None)), (slice(0, 3, 2), slice(1, None))):
            for _ in range(2):
                expected = values[3:18, *part]
                out = np.empty_like(expected)
                array.read(3, 18, out, part)
                assert np.array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_large_reads_give_the_same(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(step_array, "_STREAM_BYTES", 1)
    values = steps(19, dtype)
    array = reader(tmp_path, *written(tmp_path, values))
    for _ in range(2):
        assert np.array_equal(read(array, 1, 18), values[1:18])


def test_a_part_is_checked_whole(tmp_path):
    spec, stamps = written(tmp_path, steps(8))
    file = tmp_path / "x/c/0/0/0/0"
    raw = bytearray(file.read_bytes())
    raw[4 * 34 + 29] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CorruptStoreError, match="the chunk of step 4 fails its crc32c"):
        reader(tmp_path, spec, stamps).read(4, 5, np.empty((1, 1, 1, 5), np.int8), (slice(0, 1), slice(0, 1)))


def test_asking_ahead_changes_nothing(tmp_path):
    values = steps(19)
    array = reader(tmp_path, *written(tmp_path, values))
    for start, stop in ((0, 19), (7, 9), (18, 19), (3, 3)):
        array.will_read(start, stop)
    assert np.array_equal(read(array, 0, 19), values)


def test_checksums_are_those_of_an_independent_implementation():
    data = steps(9).tobytes()
    assert crc32c(data) == google_crc32c.value(data) and crc32c(data[5:], crc32c(data[:5])) == google_crc32c.value(data)
    assert joined_crc32c(crc32c(data[:5]), crc32c(data[5:]), len(data) - 5) == google_crc32c.value(data)
    assert crc32c(with_crc32c(data)) == CRC_RESIDUE


@pytest.mark.parametrize(("values", "expected"), [
    (np.array([-127, 127], np.int8), False), (np.array([0, -128], np.int8), True),
    (np.array([0, 65504, -1e-7], np.float16), False), (np.array([0, np.nan], np.float16), True),
    (np.array([np.inf], np.float16), True), (np.array([1.0, np.nan]), True), (np.array([1, 2], np.int32), False),
])
def test_holes_are_fill_values(values, expected):
    assert has_hole(values) is expected
