"""Shards whose chunks are compressed: the layout of `features.shards`, with chunks of any length that only the index finds.

Each step is one zstd frame followed by the crc32c of its compressed bytes (Zarr v3 inner codecs `bytes, zstd, crc32c`), so
that damage is found before anything is decompressed. For cold and remote storage: int8 tokens shrink by a tenth to a quarter,
and every read decompresses.
"""

from pathlib import Path

import numpy as np
from numcodecs import zstd

from features.array_files import ArrayFiles
from features.checksum import CRC_RESIDUE, crc32c, with_crc32c
from features.mapped_files import UNOPENED, MappedFile
from features.shards import NO_CHUNK, ShardWriter
from features.step_array import Part, Verify, has_hole
from features.zarr_layout import CRC_BYTES, INDEX_ENTRY_BYTES, ZSTD_LEVEL, ArraySpec


class CompressedShardWriter(ShardWriter):
    """As `ShardWriter`, for an array with `compression`."""

    def __init__(self, folder: Path, spec: ArraySpec):
        super().__init__(folder, spec)
        self._lengths: list[int] = []

    def _encode(self, chunk: np.ndarray) -> bytes:
        data = zstd.compress(chunk, ZSTD_LEVEL)
        self._lengths.append(len(data) + CRC_BYTES)
        return data

    def _index(self) -> bytes:
        lengths = np.array(self._lengths, np.uint64)
        self._lengths.clear()
        index = np.full((self._spec.shard_steps, 2), NO_CHUNK, "<u8")
        index[: len(lengths), 0] = np.cumsum(lengths) - lengths
        index[: len(lengths), 1] = lengths
        return with_crc32c(index.tobytes())


class CompressedArray:
    """Steps of an array whose shards are compressed. `verify`: check each chunk's crc32c on its first, every or no read."""

    def __init__(self, files: ArrayFiles, spec: ArraySpec, verify: Verify):
        self.spec = spec
        self._files = files
        self._verify = verify
        self._seen_T = np.zeros(spec.shape[0], bool)
        self._mapped: dict[int, MappedFile] = {}

    def read(self, start: int, stop: int, out: np.ndarray, part: Part | None = None) -> None:
        """Decompresses steps start..stop into `out` (stop - start, ...) of the array's dtype; `part` are the cells to copy."""
        for step in range(start, stop):
            values = self._step(step)
            out[step - start] = values if part is None else values[part]

    def in_place(self, start: int, stop: int) -> None:
        """As `ShardedArray.in_place`: never."""

    def will_read(self, start: int, stop: int) -> None:
        """Asks the system to fetch these steps from the disk now; returns at once."""
        shard_steps = self.spec.shard_steps
        for shard in range(start // shard_steps, -(-stop // shard_steps)):
            if shard not in self._mapped and not self._files.fetch_soon(self.spec.shard_name(shard)):
                continue
            mapped, _, index = self._shard(shard)
            wanted = index[max(start - shard * shard_steps, 0) : stop - shard * shard_steps]
            if len(wanted):
                mapped.will_read(int(wanted[:, 0].min()), int(wanted.sum(1).max()))

    def checksums(self, shard: int) -> bytes:
        """The stored checksums of a shard's chunks, in the order of the chunks."""
        num_chunks = self.spec.chunks_in_shard(shard)
        return b"".join(self._chunk(shard, chunk)[-CRC_BYTES:].tobytes() for chunk in range(num_chunks))

    def _step(self, step: int) -> np.ndarray:
        shard, number = divmod(step, self.spec.shard_steps)
        chunk = self._chunk(shard, number)
        is_new = not self._seen_T[step]
        if (self._verify == "always" or (is_new and self._verify == "first")) and crc32c(chunk) != CRC_RESIDUE:
            raise self._error(shard, f"the chunk of step {step} fails its crc32c")
        try:
            raw = zstd.decompress(chunk[:-CRC_BYTES])
        except (RuntimeError, ValueError) as error:
            raise self._error(shard, f"the chunk of step {step} cannot be decompressed ({error})") from None
        if len(raw) != self.spec.chunk_bytes:
            raise self._error(shard, f"the chunk of step {step} holds {len(raw)} bytes, expected {self.spec.chunk_bytes}")
        values = np.frombuffer(raw, self.spec.dtype).reshape(self.spec.shape[1:])
        if (is_new or self._verify == "always") and has_hole(values):
            raise self._error(shard, f"step {step} holds a fill value (a hole)")
        self._seen_T[step] = True
        return values

    def _chunk(self, shard: int, number: int) -> np.ndarray:
        """The compressed bytes of a chunk and their checksum."""
        _, data, index = self._shard(shard)
        offset, length = index[number]
        return data[offset : offset + length]

    def _shard(self, shard: int) -> tuple[MappedFile, np.ndarray, np.ndarray]:
        """A shard's file, its bytes, and its index."""
        name, before = self.spec.shard_name(shard), self._mapped.get(shard, UNOPENED)
        view = before.view
        if view is not None:
            self._files.check_whole(name, before)
            before.used = True
            return before, *view
        mapped = self._files.map(name)
        data = mapped.data
        if data is None:
            # The pool is smaller than the number of threads that read.
            return self._shard(shard)
        if before.identity != mapped.identity:
            self._seen_T[shard * self.spec.shard_steps : (shard + 1) * self.spec.shard_steps] = False
        view = mapped.view = data, self._index(shard, data)
        self._mapped[shard] = mapped
        return mapped, *view

    def _index(self, shard: int, data: np.ndarray) -> np.ndarray:
        """(chunks, 2) int64 offsets and lengths. Raises where a chunk is missing or lies outside the file."""
        spec = self.spec
        raw = data[-spec.index_size :].tobytes()
        if len(raw) < spec.index_size or crc32c(raw) != CRC_RESIDUE:
            raise self._error(shard, "the index fails its crc32c")
        index = np.frombuffer(raw, "<u8", count=spec.shard_steps * INDEX_ENTRY_BYTES // 8).reshape(-1, 2)
        index = index[: spec.chunks_in_shard(shard)]
        missing = np.flatnonzero(index[:, 0] == NO_CHUNK)
        if len(missing):
            raise self._error(shard, f"the chunk of step {shard * spec.shard_steps + missing[0]} is missing")
        end = np.uint64(len(data))
        if (index > end).any() or (index.sum(1) > end).any() or (index[:, 1] <= CRC_BYTES).any():
            raise self._error(shard, "the index points outside the file")
        return index.astype(np.int64)

    def _error(self, shard: int, what: str) -> Exception:
        return self._files.error(self.spec.shard_name(shard), what)
