"""`docs/store-format.md` is enough: a store that is written from that page with numpy, json and a crc32c is read, verified, and
found equal. Nothing of the project is used to write it.
"""

import hashlib
import json
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr

from features.store import open_store
from features.store_convert import StorageChange, convert_store

STEPS, GRID, CHANNELS, TUBELET, SHARD_STEPS, CLIP_FRAMES = 11, (3, 5), 6, 2, 4, 8
NUM_FRAMES = STEPS * TUBELET
VIDEO_ID = "Kamera 1/ß"
ENCODING = {
    "family": "foreign", "digest": "none", "channels": CHANNELS, "tubelet": TUBELET, "patch_px": 16, "input_hw": [48, 80],
    "fit": "stretch", "resize_version": 1, "frame_step": 1, "sample_fps": None, "clip_frames": CLIP_FRAMES, "fixed_clip": False,
    "overlap": 0, "keep": "central", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
}
FILL = {"int8": -128, "int32": -1}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}


def crc32c(data: bytes) -> bytes:
    return struct.pack("<I", google_crc32c.value(data))


def hex_of(checksum: bytes) -> str:
    return f"{struct.unpack('<I', checksum)[0]:08x}"


class Generation:
    """The files of one video, as they are written, with the stamps that its commit names."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.stamps: dict[str, list] = {}

    def write(self, name: str, data: bytes, chunk_checksums: bytes | None = None) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        chunks = [] if chunk_checksums is None else [hex_of(crc32c(chunk_checksums))]
        self.stamps[name] = [len(data), hex_of(crc32c(data)), *chunks]

    def metadata(self, name: str, values: np.ndarray, codecs: list, chunk_shape: list) -> None:
        content = {
            "zarr_format": 3, "node_type": "array", "shape": values.shape, "data_type": values.dtype.name,
            "fill_value": FILL.get(values.dtype.name, "NaN"),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "codecs": codecs,
        }
        self.write(f"{name}/zarr.json", json.dumps(content).encode())

    def single(self, name: str, values: np.ndarray) -> None:
        """An array of one chunk."""
        data = values.tobytes()
        self.metadata(name, values, [LITTLE, CRC], list(values.shape))
        self.write(f"{name}/" + "/".join(["c", *["0"] * values.ndim]), data + crc32c(data), crc32c(data))

    def sharded(self, name: str, values: np.ndarray, in_order: bool) -> None:
        """An array of a chunk per step; without `in_order` the chunks of a shard lie backwards, which the index says."""
        order = {"name": "bytes"} if values.dtype == np.int8 else LITTLE
        codecs = [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": [1, *values.shape[1:]], "codecs": [order, CRC], "index_codecs": [LITTLE, CRC], "index_location": "end",
        }}]
        self.metadata(name, values, codecs, [SHARD_STEPS, *values.shape[1:]])
        for shard in range(-(-len(values) // SHARD_STEPS)):
            chunks = [step.tobytes() for step in values[shard * SHARD_STEPS :][:SHARD_STEPS]]
            places, data = {}, b""
            for number in range(len(chunks)) if in_order else reversed(range(len(chunks))):
                places[number] = len(data), len(chunks[number]) + 4
                data += chunks[number] + crc32c(chunks[number])
            index = b"".join(struct.pack("<QQ", *places.get(number, (2**64 - 1, 2**64 - 1))) for number in range(SHARD_STEPS))
            path = "/".join(["c", str(shard), *["0"] * (values.ndim - 1)])
            self.write(f"{name}/{path}", data + index + crc32c(index), b"".join(map(crc32c, chunks)))


def key_of(video_id: str) -> str:
    raw = video_id.encode()
    key = "".join(chr(byte) if chr(byte) in "abcdefghijklmnopqrstuvwxyz0123456789_-" else f"%{byte:02X}" for byte in raw)[:120]
    return f"{key}~{hashlib.sha256(raw).hexdigest()[:16]}"


def quantised(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """codes, scale, mean, std by the section "Quantising"."""
    first = tokens[: CLIP_FRAMES // TUBELET].astype(np.float64).reshape(-1, CHANNELS)
    mean, std = first.mean(0), first.std(0)
    std = np.maximum(std, max(0.01 * np.sqrt((std**2).mean()), 0.001 * np.sqrt((first**2).mean()))).astype(np.float32)
    mean = mean.astype(np.float32)
    x = (tokens - mean) / std
    peak = np.abs(x).max(-1)
    scale = (peak / 127).astype(np.float16)
    scale = np.where(127.4 * scale.astype(np.float32) < peak, np.nextafter(scale, np.float16(np.inf)), scale)
    return np.rint(x / scale[..., None].astype(np.float32)).astype(np.int8), scale, mean, std


def pooled(tokens: np.ndarray, n: int) -> np.ndarray:
    out = np.empty((STEPS, n, n, CHANNELS), np.float16)
    rows, columns = (
        [slice(i * size // n, -(-(i + 1) * size // n)) for i in range(n)] for size in GRID
    )
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            out[:, i, j] = tokens[:, row, column].astype(np.float64).mean((1, 2))
    return out


def write_store(path: Path, tokens: np.ndarray, in_order: bool) -> None:
    key, generation = key_of(VIDEO_ID), "0123abc"
    zarr_path = path / "tokens.zarr"
    video = Generation(zarr_path / "videos" / key / generation)
    codes, scale, mean, std = quantised(tokens)
    video.sharded("tokens", codes, in_order)
    video.sharded("scale", scale, in_order)
    for n in (1, 2):
        video.sharded(f"pool{n}", pooled(tokens, n), in_order)
    frames = np.arange(NUM_FRAMES, dtype=np.int32).reshape(STEPS, TUBELET)
    first_seen = frames[:, 0] // CLIP_FRAMES * CLIP_FRAMES
    for name, values in {
        "mean": mean, "std": std, "frames": frames, "first_frame_seen": first_seen.astype(np.int32),
        "last_frame_seen": np.minimum(first_seen + CLIP_FRAMES, NUM_FRAMES).astype(np.int32) - 1,
        "frame_time_s": np.arange(NUM_FRAMES) / 25,
    }.items():
        video.single(name, values)
    attributes = {
        "id": VIDEO_ID, "source": {"name": "x.mp4", "size": 5, "mtime_ns": 7, "sha256": ""}, "num_frames": NUM_FRAMES, "fps": "25",
        "width": 160, "height": 96, "grid": GRID, "decoder": "none", "device": "none", "dtype": "float32", "a_later_key": [1],
        "space_grid": {
            "fit": "stretch", "width": 160, "height": 96, "resize_width": 80, "resize_height": 48, "offset_x": 0, "offset_y": 0,
            "input_width": 80, "input_height": 48, "patch_px": 16,
        },
    }
    group = {"zarr_format": 3, "node_type": "group"}
    video.write("zarr.json", json.dumps(group | {"attributes": attributes}).encode())
    canonical = json.dumps(ENCODING, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    root = {"format": "vjepa_loc_store", "version": 1, "encoding": ENCODING, "fingerprint": hashlib.sha256(canonical).hexdigest()}
    above = Generation(zarr_path)
    for name, content in {"zarr.json": root, "videos/zarr.json": {}, f"videos/{key}/zarr.json": {}}.items():
        above.write(name, json.dumps(group | {"attributes": content}).encode())
    folder = f"videos/{key}/{generation}"
    record = {
        "version": 1, "id": VIDEO_ID, "path": folder,
        "storage": {"number_format": "int8", "shard_steps": SHARD_STEPS, "levels": ["tokens", "pool1", "pool2"]},
        "video": {
            "num_frames": NUM_FRAMES, "width": 160, "height": 96, "steps": STEPS, "grid": GRID,
            "bytes": sum(stamp[0] for stamp in video.stamps.values()), "damaged": False,
        },
        "files": above.stamps | {f"{folder}/{name}": stamp for name, stamp in video.stamps.items()},
    }
    body = json.dumps(record, ensure_ascii=False).encode()[:-1]
    (path / "commits").mkdir()
    (path / "commits" / f"{key}.json").write_bytes(body + f',"crc32c":"{hex_of(crc32c(body))}"}}\n'.encode())


@pytest.fixture(params=[True, False], ids=["in order", "backwards"])
def written(request, tmp_path):
    """(path, tokens) of a store of one video."""
    tokens = np.random.default_rng(0).normal(size=(STEPS, *GRID, CHANNELS)).astype(np.float32) * np.arange(1, CHANNELS + 1)
    write_store(tmp_path / "store", tokens.astype(np.float32), request.param)
    return tmp_path / "store", tokens.astype(np.float32)


def test_such_a_store_is_read_and_whole(written):
    path, tokens = written
    store = open_store(path)
    assert store.video_ids() == [VIDEO_ID] and store.encoding.fingerprint == store.fingerprint
    report = store.verify()
    assert report.ok, [str(problem) for problem in report.problems]
    video = store.video(VIDEO_ID)
    codes, scale, mean, std = quantised(tokens)
    ours = video.read_codes()
    assert np.array_equal(ours[0], codes) and np.array_equal(ours[1], scale)
    assert np.array_equal(video.mean, mean) and np.array_equal(video.std, std)
    assert np.array_equal(video.read("pool2", 3, 9), pooled(tokens, 2)[3:9])
    assert np.abs(video.read("tokens") - tokens).max() < 0.02 * np.abs(tokens).max()
    assert video.frame_time_s[-1] == (NUM_FRAMES - 1) / 25 and video.last_frame_seen[-1] == NUM_FRAMES - 1


def test_zarr_reads_the_same(written):
    path, tokens = written
    group = zarr.open_group(path / "tokens.zarr", mode="r")[open_store(path).commit_of(VIDEO_ID).path]
    codes, scale, _, _ = quantised(tokens)
    assert np.array_equal(group["tokens"][:], codes) and np.array_equal(group["scale"][:], scale)
    assert np.array_equal(group["pool1"][:], pooled(tokens, 1))


def test_the_page_describes_the_quantiser_and_the_pyramid_of_this_program(tmp_path, written):
    from tests.features.store_builder import add_video, small_store

    _, tokens = written
    store = small_store(tmp_path / "ours", channels=CHANNELS, clip_frames=CLIP_FRAMES)
    add_video(store, "v", tokens)
    video = store.video("v")
    codes, scale, mean, std = quantised(tokens)
    assert np.allclose(video.mean, mean, rtol=1e-6) and np.allclose(video.std, std, rtol=1e-6)
    ours_codes, ours_scale = video.read_codes()
    assert (ours_codes != codes).mean() < 0.01 and np.abs(ours_codes.astype(int) - codes).max() <= 1
    assert np.allclose(ours_scale.astype(np.float32), scale.astype(np.float32), rtol=1e-3)
    for n in (1, 2):
        assert np.array_equal(video.read(f"pool{n}"), pooled(tokens, n))


def test_such_a_store_is_converted_and_keeps_what_this_program_does_not_know(written, tmp_path):
    path, tokens = written
    store = open_store(path)
    for name, change in {"zstd": StorageChange(compression="zstd"), "float16": StorageChange(number_format="float16", shard_steps=7)}.items():
        assert convert_store(store, tmp_path / name, change).copied == (VIDEO_ID,)
        converted = open_store(tmp_path / name)
        assert converted.verify().ok
        assert np.array_equal(converted.video(VIDEO_ID).read("tokens"), store.video(VIDEO_ID).read("tokens"))
    group = zarr.open_group(tmp_path / "zstd/tokens.zarr", mode="r")[open_store(tmp_path / "zstd").commit_of(VIDEO_ID).path]
    assert group.attrs["a_later_key"] == [1]
