"""Compressed shards against zarr-python, and what a damaged one says."""

import google_crc32c
import numpy as np
import pytest
import zarr

from features.compressed_shards import CompressedArray, CompressedShardWriter
from features.places.local import LocalPlace
from features.step_array import ArrayFiles
from features.zarr_layout import ArraySpec, array_metadata, metadata_bytes, spec_of
from vjepa_loc.errors import CorruptStoreError

DIMENSIONS = ("step", "row", "column", "channel")
SPEC = ArraySpec((21, 3, 2, 50), "int8", DIMENSIONS, 8, "zstd")


def codes(shape=SPEC.shape):
    """Codes as tokens have them: most are small."""
    return np.clip(np.random.default_rng(0).normal(size=shape) * 20, -127, 127).astype(np.int8)


def write(folder, spec, values, cuts=(7,)):
    folder.mkdir(exist_ok=True)
    writer = CompressedShardWriter(folder / "x", spec)
    for start, stop in zip((0, *cuts), (*cuts, len(values)), strict=True):
        writer.append(values[start:stop])
    stamps = writer.close()
    (folder / "x" / "zarr.json").write_bytes(metadata_bytes(array_metadata(spec)))
    return ArrayFiles("v", "x", LocalPlace(folder), ".", {f"x/{name}": stamp for name, stamp in stamps.items()}), stamps


@pytest.mark.parametrize(("dtype", "shape"), [("int8", SPEC.shape), ("float16", SPEC.shape), ("float16", (21, 4, 5)), ("int8", (1, 1, 1, 1))])
def test_zarr_reads_what_we_write(tmp_path, dtype, shape):
    spec = ArraySpec(shape, dtype, DIMENSIONS[: len(shape)], 8, "zstd")
    values = codes(shape).astype(dtype)
    files, stamps = write(tmp_path, spec, values, cuts=(7,) if len(values) > 7 else ())
    assert spec_of(array_metadata(spec)) == spec
    array = zarr.open_array(tmp_path / "x", mode="r")
    assert array.dtype == dtype and np.array_equal(array[:], values)
    ours = CompressedArray(files, spec, "first")
    out = np.empty_like(values)
    ours.read(0, len(values), out)
    assert np.array_equal(out, values)
    for number, (name, stamp) in enumerate(stamps.items()):
        raw = (tmp_path / "x" / name).read_bytes()
        assert (len(raw), f"{google_crc32c.value(raw):08x}") == (stamp.size, stamp.crc32c)
        assert f"{google_crc32c.value(ours.checksums(number)):08x}" == stamp.chunks


def test_we_read_what_zarr_writes(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "zarr.json").write_bytes(metadata_bytes(array_metadata(SPEC)))
    zarr.open_array(tmp_path / "x", mode="r+")[:] = codes()
    stamps = {f"x/{name}": type("Stamp", (), {"size": (tmp_path / "x" / name).stat().st_size}) for name in map(SPEC.shard_name, range(3))}
    out = np.empty_like(codes())
    CompressedArray(ArrayFiles("v", "x", LocalPlace(tmp_path), ".", stamps), SPEC, "always").read(0, 21, out)
    assert np.array_equal(out, codes())


def test_bytes_do_not_depend_on_the_appends_and_are_fewer(tmp_path):
    spec = ArraySpec((21, 3, 2, 1000), "int8", DIMENSIONS, 8, "zstd")
    values = codes(spec.shape)
    stamps = [write(tmp_path / str(index), spec, values, cuts)[1] for index, cuts in enumerate([(), (1,), (8,), (3, 4, 20)])]
    assert all(other == stamps[0] for other in stamps)
    assert sum(stamp.size for stamp in stamps[0].values()) < 0.9 * spec.total_size


def test_a_part_of_the_steps_and_cells(tmp_path):
    files, _ = write(tmp_path, SPEC, codes())
    out = np.empty((5, 2, 1, 50), np.int8)
    CompressedArray(files, SPEC, "first").read(6, 11, out, (slice(1, 3), slice(0, 1)))
    assert np.array_equal(out, codes()[6:11, 1:3, :1])


@pytest.mark.parametrize(("position", "message"), [
    (10, "the chunk of step 8 fails its crc32c"), (-3, "the index fails its crc32c"), (-100, "the index fails its crc32c"),
])
def test_a_flipped_bit_is_found_and_placed(tmp_path, position, message):
    files, _ = write(tmp_path, SPEC, codes())
    path = tmp_path / "x" / SPEC.shard_name(1)
    raw = bytearray(path.read_bytes())
    raw[position] ^= 16
    path.write_bytes(raw)
    array, out = CompressedArray(files, SPEC, "first"), np.empty((1, *SPEC.shape[1:]), np.int8)
    with pytest.raises(CorruptStoreError, match=f"{message} in .*c/1/0/0/0; the other videos"):
        array.read(8, 9, out)
    array.read(7, 8, out)
    assert np.array_equal(out[0], codes()[7])
    if message.startswith("the chunk"):
        array.read(9, 10, out)


def test_a_missing_chunk_and_a_hole_are_no_values(tmp_path):
    values = codes()
    values[3, 0, 0, 0] = -128
    files, _ = write(tmp_path, SPEC, values)
    out = np.empty((1, *SPEC.shape[1:]), np.int8)
    with pytest.raises(CorruptStoreError, match=r"step 3 holds a fill value \(a hole\)"):
        CompressedArray(files, SPEC, "never").read(3, 4, out)
    longer = ArraySpec((24, *SPEC.shape[1:]), "int8", DIMENSIONS, 8, "zstd")
    with pytest.raises(CorruptStoreError, match="the chunk of step 21 is missing"):
        CompressedArray(files, longer, "first").read(22, 23, out)


def test_a_chunk_of_another_size_is_refused(tmp_path):
    files, _ = write(tmp_path, SPEC, codes())
    wider = ArraySpec((21, 3, 2, 51), "int8", DIMENSIONS, 8, "zstd")
    with pytest.raises(CorruptStoreError, match="the chunk of step 0 holds 300 bytes, expected 306"):
        CompressedArray(files, wider, "first").read(0, 1, np.empty((1, *wider.shape[1:]), np.int8))
    with pytest.raises(ValueError, match=r"expected \(n, 3, 2, 50\) int8, got \(2, 3, 2, 51\) int8"):
        CompressedShardWriter(tmp_path / "y", SPEC).append(np.zeros((2, 3, 2, 51), np.int8))
