"""The Zarr v3 metadata of a store: which arrays a video has, how each is chunked, and the bytes of every `zarr.json`.

Step arrays (tokens, scale, pyramid) are sharded: one chunk per step, compressed where the storage says so, crc32c after
each chunk, the index at the end of the shard. All other arrays are one chunk with its crc32c. Metadata are written as a fixed function of
their values, so that equal values give equal bytes and a commit can name their checksum.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from features.checksum import CRC_BYTES
from features.schema import Compression, Encoding, Storage

FORMAT_VERSION = 1
HOLE_CODE = -128
POOL_SIZES = {"pool1": 1, "pool2": 2, "pool4": 4}
INDEX_ENTRY_BYTES = 16
# Higher levels save another percent of int8 tokens and take several times as long.
ZSTD_LEVEL = 1

_FREE_METADATA = ("attributes", "dimension_names")
_FILL: dict[str, Any] = {"int8": HOLE_CODE, "int32": -1, "float16": "NaN", "float32": "NaN", "float64": "NaN"}


@dataclass(frozen=True)
class ArraySpec:
    """One array of a video's group. `shard_steps` is None for an array that is a single chunk; only sharded arrays are
    compressed.
    """

    shape: tuple[int, ...]
    dtype: str
    dimensions: tuple[str, ...]
    shard_steps: int | None = None
    compression: Compression = "none"

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one step of a step array, of the whole array otherwise; before compression, without the checksum."""
        shape = self.shape if self.shard_steps is None else self.shape[1:]
        return math.prod(shape) * np.dtype(self.dtype).itemsize

    @property
    def num_shards(self) -> int:
        return 1 if self.shard_steps is None else -(-self.shape[0] // self.shard_steps)

    def shard_name(self, shard: int) -> str:
        """Path of a shard's or chunk's file below the array's folder."""
        return "/".join(["c", str(shard), *["0"] * (len(self.shape) - 1)])

    def chunks_in_shard(self, shard: int) -> int:
        """Steps that shard number `shard` holds."""
        return min(self.shard_steps, self.shape[0] - shard * self.shard_steps)

    def shard_size(self, shard: int) -> int:
        """Bytes of a shard's file, where it is not compressed: its chunks with their checksums, then the index with its
        own.
        """
        if self.shard_steps is None:
            return self.chunk_bytes + CRC_BYTES
        return self.chunks_in_shard(shard) * (self.chunk_bytes + CRC_BYTES) + self.index_size

    @property
    def total_size(self) -> int:
        """Bytes of all shards of a step array, where they are not compressed."""
        return self.shape[0] * (self.chunk_bytes + CRC_BYTES) + self.num_shards * self.index_size

    @property
    def index_size(self) -> int:
        """Bytes of a shard's index with its checksum."""
        return self.shard_steps * INDEX_ENTRY_BYTES + CRC_BYTES


def step_specs(storage: Storage, num_steps: int, grid_HW: Sequence[int], channels: int) -> dict[str, ArraySpec]:
    """The step arrays that `storage` keeps, by name: levels, and `scale` beside int8 tokens."""
    height, width = grid_HW
    specs = {}
    for level in storage.levels:
        h, w = (height, width) if level == "tokens" else (POOL_SIZES[level],) * 2
        dtype = storage.number_format if level == "tokens" else "float16"
        dimensions = ("step", "row", "column", "channel")
        shape = (num_steps, h, w, channels)
        specs[level] = ArraySpec(shape, dtype, dimensions, storage.shard_steps, storage.compression)
    if "tokens" in storage.levels and storage.number_format == "int8":
        shape, dimensions = (num_steps, height, width), ("step", "row", "column")
        specs["scale"] = ArraySpec(shape, "float16", dimensions, storage.shard_steps, storage.compression)
    return specs


def plain_specs(num_steps: int, tubelet: int, channels: int, num_frames: int) -> dict[str, ArraySpec]:
    """The arrays of a video that are one chunk each, by name."""
    return {
        "mean": ArraySpec((channels,), "float32", ("channel",)),
        "std": ArraySpec((channels,), "float32", ("channel",)),
        "frames": ArraySpec((num_steps, tubelet), "int32", ("step", "tubelet")),
        "first_frame_seen": ArraySpec((num_steps,), "int32", ("step",)),
        "last_frame_seen": ArraySpec((num_steps,), "int32", ("step",)),
        "frame_time_s": ArraySpec((num_frames,), "float64", ("frame",)),
    }


def array_metadata(spec: ArraySpec) -> dict[str, Any]:
    """The content of an array's `zarr.json`."""
    byte_order = {"name": "bytes"} if spec.dtype == "int8" else {"name": "bytes", "configuration": {"endian": "little"}}
    codecs: list[dict[str, Any]] = [byte_order, {"name": "crc32c"}]
    if spec.compression == "zstd":
        # The checksum comes last: a damaged chunk is found before it is decompressed.
        codecs.insert(1, {"name": "zstd", "configuration": {"level": ZSTD_LEVEL, "checksum": False}})
    chunk_shape = list(spec.shape)
    if spec.shard_steps is not None:
        chunk_shape[0] = spec.shard_steps
        codecs = [{
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [1, *spec.shape[1:]],
                "codecs": codecs,
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_location": "end",
            },
        }]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _FILL[spec.dtype],
        "codecs": codecs,
        "dimension_names": list(spec.dimensions),
        "attributes": {},
    }


def group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """The content of a group's `zarr.json`."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def root_attributes(encoding: Encoding) -> dict[str, Any]:
    """What the root group says: never changed after the store is made."""
    return {
        "format": "vjepa_loc_store",
        "version": FORMAT_VERSION,
        "encoding": encoding.to_dict(),
        "fingerprint": encoding.fingerprint,
    }


def metadata_bytes(metadata: dict[str, Any]) -> bytes:
    """The bytes of a `zarr.json`."""
    return (json.dumps(metadata, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


# The `zarr.json` of the groups above the videos: the same bytes everywhere.
GROUP_BYTES = metadata_bytes(group_metadata({}))


def spec_of(metadata: dict[str, Any]) -> ArraySpec | None:
    """The `ArraySpec` whose layout these metadata describe; None for any other array (compressed otherwise, chunked
    otherwise). Attributes and names of dimensions may differ.
    """
    try:
        spec = ArraySpec(tuple(metadata["shape"]), metadata["data_type"], tuple(metadata.get("dimension_names") or ()))
        if metadata["codecs"][0]["name"] == "sharding_indexed":
            steps = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
            names = [codec["name"] for codec in metadata["codecs"][0]["configuration"]["codecs"]]
            spec = replace(spec, shard_steps=steps, compression="zstd" if "zstd" in names else "none")
        described = {name: value for name, value in metadata.items() if name not in _FREE_METADATA}
        expected = {name: value for name, value in array_metadata(spec).items() if name not in _FREE_METADATA}
        return spec if described == expected else None
    except (KeyError, IndexError, TypeError):
        return None
