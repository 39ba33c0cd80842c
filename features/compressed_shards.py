"""Shards whose chunks are compressed: the layout of `features.shards`, with chunks of any length that only the index finds.

Each step is one zstd frame followed by the crc32c of its compressed bytes (Zarr v3 inner codecs `bytes, zstd, crc32c`), so
that damage is found before anything is decompressed. For cold and remote storage: tokens in int8 shrink by about a quarter,
and every read decompresses.
"""

import os
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import zstd

from features.commits import FileStamp
from features.durable import write_all
from features.shards import CRC_RESIDUE, NO_CHUNK, with_crc32c
from features.step_array import ArrayFiles, Verify, has_hole
from features.zarr_layout import CRC_BYTES, INDEX_ENTRY_BYTES, ZSTD_LEVEL, ArraySpec


class CompressedShardWriter:
    """As `ShardWriter`, for an array with `compression`: appends steps below `folder`, holds one append in memory."""

    def __init__(self, folder: Path, spec: ArraySpec):
        self._folder = folder
        self._spec = spec
        self._fd: int | None = None
        self._lengths: list[int] = []
        self._shard = 0
        self._crc = self._chunks_crc = 0
        self._stamps: dict[str, FileStamp] = {}

    def append(self, steps: np.ndarray) -> None:
        """Writes `steps` of shape (n, ...), of the array's dtype. Raises `OSError`."""
        spec = self._spec
        if steps.dtype != spec.dtype or steps.shape[1:] != spec.shape[1:]:
            expected = ", ".join(["n", *map(str, spec.shape[1:])])
            raise ValueError(f"expected ({expected}) {spec.dtype}, got {steps.shape} {steps.dtype}")
        steps = np.ascontiguousarray(steps)
        while len(steps):
            if self._fd is None:
                self._open()
            room = spec.shard_steps - len(self._lengths)
            self._write(steps[:room])
            steps = steps[room:]
            if len(self._lengths) == spec.shard_steps:
                self._finish_shard()

    def close(self) -> dict[str, FileStamp]:
        """Finishes the last shard; the stamps are by name below `folder`."""
        if self._fd is not None:
            self._finish_shard()
        return self._stamps

    def abort(self) -> None:
        """Closes the file that is open, without an index: no reader will take it for a shard."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        path = self._folder / self._spec.shard_name(self._shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._lengths = []
        self._crc = self._chunks_crc = 0

    def _write(self, steps: np.ndarray) -> None:
        chunks = [with_crc32c(zstd.compress(step, ZSTD_LEVEL)) for step in steps]
        for chunk in chunks:
            self._chunks_crc = google_crc32c.extend(self._chunks_crc, chunk[-CRC_BYTES:])
        data = b"".join(chunks)
        self._crc = google_crc32c.extend(self._crc, data)
        write_all(self._fd, data)
        self._lengths += [len(chunk) for chunk in chunks]

    def _finish_shard(self) -> None:
        lengths = np.array(self._lengths, np.uint64)
        index = np.full((self._spec.shard_steps, 2), NO_CHUNK, "<u8")
        index[: len(lengths), 0] = np.cumsum(lengths) - lengths
        index[: len(lengths), 1] = lengths
        raw = with_crc32c(index.tobytes())
        write_all(self._fd, raw)
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = None
        size = int(lengths.sum()) + len(raw)
        stamp = FileStamp(size, f"{google_crc32c.extend(self._crc, raw):08x}", f"{self._chunks_crc:08x}")
        self._stamps[self._spec.shard_name(self._shard)] = stamp
        self._shard += 1


class CompressedArray:
    """Steps of an array whose shards are compressed. `verify`: check each chunk's crc32c on its first, every or no read."""

    def __init__(self, files: ArrayFiles, spec: ArraySpec, verify: Verify):
        self.spec = spec
        self._files = files
        self._verify = verify
        self._seen_T = np.zeros(spec.shape[0], bool)
        self._indexes: dict[int, tuple[tuple[int, int, int], np.ndarray]] = {}

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copies steps start..stop into `out` (stop - start, ...), C-contiguous and of the array's dtype."""
        for step in range(start, stop):
            out[step - start] = self._step(step)

    def checksums(self, shard: int) -> bytes:
        """The stored checksums of a shard's chunks, in the order of the chunks."""
        num_chunks = self.spec.chunks_in_shard(shard)
        return b"".join(self._chunk(shard, chunk)[-CRC_BYTES:].tobytes() for chunk in range(num_chunks))

    def _step(self, step: int) -> np.ndarray:
        shard, number = divmod(step, self.spec.shard_steps)
        chunk = self._chunk(shard, number)
        is_new = not self._seen_T[step]
        if (self._verify == "always" or (is_new and self._verify == "first")) and google_crc32c.value(chunk) != CRC_RESIDUE:
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
        data, identity = self._files.map(self.spec.shard_name(shard))
        known = self._indexes.get(shard)
        if known is None or known[0] != identity:
            self._seen_T[shard * self.spec.shard_steps : (shard + 1) * self.spec.shard_steps] = False
            known = self._indexes[shard] = identity, self._index(shard, data)
        offset, length = known[1][number]
        return data[offset : offset + length]

    def _index(self, shard: int, data: np.ndarray) -> np.ndarray:
        """(chunks, 2) int64 offsets and lengths. Raises where a chunk is missing or lies outside the file."""
        spec = self.spec
        raw = data[-spec.index_size :].tobytes()
        if len(raw) < spec.index_size or google_crc32c.value(raw) != CRC_RESIDUE:
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
        return self._files.error(self._files.folder / self.spec.shard_name(shard), what)
