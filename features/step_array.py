"""Reading arrays of one committed video: step arrays from memory-mapped shards, small ones whole, the rest through
zarr.

A shard whose chunks lie in order is a matrix of (chunk, checksum) rows: reading steps is one strided copy from the page
cache into the caller's buffer. Files are held open in one bounded pool, so a store of any number of videos can be read.
"""

import math
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import google_crc32c
import numpy as np

from features.commits import FileStamp
from features.durable import crc32c_hex
from features.shards import CRC_RESIDUE, NO_CHUNK, shard_index
from features.zarr_layout import CRC_BYTES, HOLE_CODE, INDEX_ENTRY_BYTES, ArraySpec
from vjepa_loc.errors import CorruptStoreError

Verify = Literal["first", "always", "never"]
# Each mapping holds a file descriptor, of which a process usually has 1024.
MAX_OPEN_FILES = 256


class MappedFile(NamedTuple):
    """A file's bytes as read-only uint8, and what tells it from the file as it was before: inode, size, mtime."""

    data: np.ndarray
    identity: tuple[int, int, int]


class MappedFiles:
    """The most recently used mappings of files; one that is dropped lives on in the arrays that still look into it."""

    def __init__(self, max_files: int = MAX_OPEN_FILES):
        self._max_files = max_files
        self._files: OrderedDict[str, MappedFile] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> MappedFile:
        """Raises `OSError`; `ValueError` for an empty file. Asks the file system each time: to touch a mapping of a
        file that was cut meanwhile would kill the process.
        """
        identity = _identity(os.stat(path))
        with self._lock:
            mapped = self._files.get(path)
            if mapped is not None and mapped.identity == identity:
                self._files.move_to_end(path)
                return mapped
        with open(path, "rb") as file:
            identity = _identity(os.fstat(file.fileno()))
            mapped = MappedFile(np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8), identity)
        with self._lock:
            self._files[path] = mapped
            while len(self._files) > self._max_files:
                self._files.popitem(last=False)
        return mapped


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


_FILES = MappedFiles()


def has_hole(values: np.ndarray) -> bool:
    """Whether stored values contain the fill value: -128 among codes, anything not finite among floats."""
    if values.dtype == np.int8:
        return int(values.min()) == HOLE_CODE
    if values.dtype == np.float16:
        # numpy has no fast float16 arithmetic: all exponent bits set is infinity or NaN.
        return bool(((values.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return not bool(np.isfinite(values).all())


class ArrayFiles:
    """Where one array lies and how to say what is wrong with it."""

    def __init__(self, video_id: str, name: str, folder: Path, stamps: dict[str, FileStamp]):
        self.name = name
        self.folder = folder
        self._video_id = video_id
        self._stamps = stamps
        # Joining paths takes longer than reading a step.
        self._mappable: dict[str, tuple[str, int]] = {}

    def error(self, file: Path | str, what: str) -> CorruptStoreError:
        return CorruptStoreError(
            f"video {self._video_id!r}, array {self.name!r}: {what} in {file}; the other videos are not concerned, "
            "`cli.py store repair` extracts this one again"
        )

    def stamp(self, file: str) -> FileStamp:
        """What the commit says about a file below the array's folder."""
        try:
            return self._stamps[f"{self.name}/{file}"]
        except KeyError:
            raise self.error(self.folder / file, "a file that the commit does not name") from None

    def map(self, file: str) -> MappedFile:
        """A file below the array's folder, its size checked against the commit."""
        if file not in self._mappable:
            self._mappable[file] = str(self.folder / file), self.stamp(file).size
        path, size = self._mappable[file]
        try:
            mapped = _FILES.get(path)
        except (OSError, ValueError) as error:
            raise self.error(path, f"unreadable file ({getattr(error, 'strerror', None) or error})") from None
        if len(mapped.data) != size:
            raise self.error(path, f"expected {size} bytes, got {len(mapped.data)}")
        return mapped

    def read_bytes(self, file: str) -> bytes:
        """As `map`, for a small file that is needed whole."""
        path = self.folder / file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise self.error(path, f"unreadable file ({error.strerror})") from None
        if len(data) != self.stamp(file).size:
            raise self.error(path, f"expected {self.stamp(file).size} bytes, got {len(data)}")
        return data


class ShardedArray:
    """Steps of an array whose shards are uncompressed. `verify`: check each chunk's crc32c on its first, every or no
    read.
    """

    def __init__(self, files: ArrayFiles, spec: ArraySpec, verify: Verify):
        self.spec = spec
        self._files = files
        self._verify = verify
        self._dtype = np.dtype(spec.dtype)
        self._chunk_bytes = spec.chunk_bytes
        self._stored_bytes = spec.chunk_bytes + CRC_BYTES
        self._shard_names = [spec.shard_name(shard) for shard in range(spec.num_shards)]
        self._seen_T = np.zeros(spec.shape[0], bool)
        self._shards: dict[int, tuple[tuple[int, int, int], np.ndarray | None]] = {}

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copies steps start..stop into `out` (stop - start, ...), C-contiguous and of the array's dtype."""
        shard_steps = self.spec.shard_steps
        out_rows = out.reshape(stop - start, self._chunk_bytes // self._dtype.itemsize).view(np.uint8)
        step = start
        while step < stop:
            shard, first = divmod(step, shard_steps)
            count = min(stop - step, shard_steps - first)
            self._read_shard(shard, first, out_rows[step - start : step - start + count])
            step += count

    def checksums(self, shard: int) -> bytes:
        """The stored checksums of a shard's chunks, in the order of the chunks."""
        chunks = self._chunks(shard, 0, self.spec.chunks_in_shard(shard))
        return b"".join(chunk[-CRC_BYTES:].tobytes() for chunk in chunks)

    def _read_shard(self, shard: int, first: int, out_rows: np.ndarray) -> None:
        stop = first + len(out_rows)
        chunks = self._chunks(shard, first, stop)
        before = shard * self.spec.shard_steps
        seen = self._seen_T[before + first : before + stop]
        if self._verify == "always" or not seen.all():
            self._check(shard, first, chunks, seen)
        if isinstance(chunks, np.ndarray):
            np.copyto(out_rows, chunks[:, : self._chunk_bytes])
        else:
            for row, chunk in zip(out_rows, chunks, strict=True):
                row[:] = chunk[: self._chunk_bytes]

    def _chunks(self, shard: int, first: int, stop: int) -> np.ndarray | list[np.ndarray]:
        """Rows of a chunk and its checksum: a matrix where they lie in order, a list where the index has to be
        followed.
        """
        stored = self._stored_bytes
        data, identity = self._files.map(self._shard_names[shard])
        known = self._shards.get(shard)
        if known is None or known[0] != identity:
            self._seen_T[shard * self.spec.shard_steps : (shard + 1) * self.spec.shard_steps] = False
            known = self._shards[shard] = identity, self._irregular_offsets(shard, data)
        if known[1] is None:
            return data[first * stored : stop * stored].reshape(stop - first, stored)
        return [data[offset : offset + stored] for offset in known[1][first:stop]]

    def _check(self, shard: int, first: int, chunks: Any, seen: np.ndarray) -> None:
        for i, (chunk, is_seen) in enumerate(zip(chunks, seen.tolist(), strict=True)):
            if is_seen and self._verify != "always":
                continue
            if self._verify != "never" and google_crc32c.value(chunk) != CRC_RESIDUE:
                raise self._step_error(shard, first + i, "the chunk of step {step} fails its crc32c")
            if not is_seen and has_hole(chunk[:-CRC_BYTES].view(self._dtype)):
                raise self._step_error(shard, first + i, "step {step} holds a fill value (a hole)")
        seen[:] = True

    def _step_error(self, shard: int, chunk: int, what: str) -> CorruptStoreError:
        where = self._files.folder / self._shard_names[shard]
        return self._files.error(where, what.format(step=shard * self.spec.shard_steps + chunk))

    def _irregular_offsets(self, shard: int, data: np.ndarray) -> np.ndarray | None:
        """None where the chunks lie in order; otherwise each chunk's offset. Raises where one is missing."""
        spec, num_chunks = self.spec, self.spec.chunks_in_shard(shard)
        where = self._files.folder / self._shard_names[shard]
        expected = shard_index(num_chunks, spec.chunk_bytes, spec.shard_steps)
        raw = data[-len(expected):].tobytes()
        if raw == expected and len(data) >= spec.shard_size(shard):
            return None
        if len(raw) < len(expected) or google_crc32c.value(raw) != CRC_RESIDUE:
            raise self._files.error(where, "the index fails its crc32c")
        index = np.frombuffer(raw, "<u8", count=spec.shard_steps * INDEX_ENTRY_BYTES // 8).reshape(-1, 2)[:num_chunks]
        missing = np.flatnonzero(index[:, 0] == NO_CHUNK)
        if len(missing):
            raise self._files.error(where, f"the chunk of step {shard * spec.shard_steps + missing[0]} is missing")
        stored = self._stored_bytes
        if len(data) < stored or (index[:, 1] != stored).any() or (index[:, 0] > len(data) - stored).any():
            raise self._files.error(where, "the index points outside the file")
        return index[:, 0].astype(np.int64)


class ZarrArray:
    """Steps of an array in any other Zarr form (compressed, chunked otherwise), read by zarr; every read is checked for
    holes.
    """

    def __init__(self, files: ArrayFiles):
        import zarr

        self._files = files
        self._array = self._checked(lambda: zarr.open_array(str(files.folder), mode="r"))
        self.spec = ArraySpec(self._array.shape, str(self._array.dtype), ())

    def read(self, start: int, stop: int, out: np.ndarray) -> None:
        """As `ShardedArray.read`."""
        values = self._checked(lambda: self._array[start:stop])
        if values.size and has_hole(np.ascontiguousarray(values)):
            raise self._files.error(self._files.folder, f"steps {start} to {stop - 1} hold a fill value (a hole)")
        out[...] = values

    def _checked(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise self._files.error(self._files.folder, f"zarr cannot read it ({error})") from None


def read_whole(files: ArrayFiles, spec: ArraySpec) -> np.ndarray:
    """A single-chunk array, its crc32c checked; owned by the caller and read-only."""
    file = spec.shard_name(0)
    data = files.read_bytes(file)
    if len(data) != spec.shard_size(0):
        expected = f"expected {spec.shard_size(0)} bytes for shape {spec.shape}"
        raise files.error(files.folder / file, f"{expected}, got {len(data)}")
    if google_crc32c.value(data) != CRC_RESIDUE:
        raise files.error(files.folder / file, "the chunk fails its crc32c")
    if crc32c_hex(data[-CRC_BYTES:]) != files.stamp(file).chunks:
        raise files.error(files.folder / file, "a chunk that is whole, but not the one that was committed")
    array = np.frombuffer(data, spec.dtype, count=math.prod(spec.shape)).reshape(spec.shape)
    if array.dtype.kind == "f" and has_hole(array):
        raise files.error(files.folder / file, "a value is not finite")
    return array
