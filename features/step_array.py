"""Reading arrays of one committed video: step arrays from memory-mapped shards, small ones whole, the rest through
zarr.

A shard whose chunks lie in order is a matrix of (chunk, checksum) rows: reading steps is one strided copy from the page
cache into the caller's buffer.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from features.array_files import ArrayFiles
from features.checksum import CRC_BYTES, CRC_RESIDUE, crc32c, crc32c_hex
from features.mapped_files import UNOPENED, MappedFile
from features.shards import NO_CHUNK, shard_index
from features.zarr_layout import HOLE_CODE, INDEX_ENTRY_BYTES, ArraySpec
from vjepa_loc.errors import CorruptStoreError

Verify = Literal["first", "always", "never"]
Part = tuple[slice, slice]
"""Rows and columns of the grid."""

# From this size on the copy's target does not stay in the cache. memmove, which numpy takes for equal types, is then slower
# than its loop over vectors for types that differ: 25 against 19 us per step of 262,144 bytes; below it is the faster one.
_STREAM_BYTES = 1 << 24


def has_hole(values: np.ndarray) -> bool:
    """Whether stored values contain the fill value: -128 among codes, anything not finite among floats."""
    if values.dtype == np.int8:
        return int(values.min()) == HOLE_CODE
    if values.dtype == np.float16:
        # numpy has no fast float16 arithmetic: all exponent bits set is infinity or NaN.
        return bool(((values.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return not bool(np.isfinite(values).all())


class _ShardView(NamedTuple):
    """A mapped shard: `chunks` are its chunks with their checksums as bytes, a matrix where they lie in order, otherwise a
    list; in order, `steps_nX` are the same as steps of the array (n, ...) and `checksums_n` as numbers.
    """

    chunks: np.ndarray | list[np.ndarray]
    steps_nX: np.ndarray | None
    checksums_n: np.ndarray | list[int]


class ShardedArray:
    """Steps of an array whose shards are uncompressed. `verify`: check each chunk's crc32c on its first, every or no
    read.
    """

    def __init__(self, files: ArrayFiles, spec: ArraySpec, verify: Verify):
        self.spec = spec
        self._files = files
        self._verify = verify
        self._dtype = np.dtype(spec.dtype)
        self._shard_steps = spec.shard_steps
        self._chunk_bytes = spec.chunk_bytes
        self._shard_names = [spec.shard_name(shard) for shard in range(spec.num_shards)]
        # 1 for a step that was checked; of all containers bytearray is the quickest to search.
        self._checked_T = bytearray(spec.shape[0])
        self._always = verify == "always"
        self._mapped = [UNOPENED] * spec.num_shards

    def read(self, start: int, stop: int, out: np.ndarray, part: Part | None = None) -> None:
        """Copies steps start..stop into `out` (stop - start, ...) of the array's dtype; `part` are the cells to copy."""
        if start == stop:
            return
        shard_steps = self._shard_steps
        shard = start // shard_steps
        before = shard * shard_steps
        mapped = self._mapped[shard]
        view = mapped.view
        # The way of single steps: nothing is asked that need not be, since a copy takes no longer than ten lookups.
        if view is not None and part is None and stop <= before + shard_steps and self._checked_T.find(0, start, stop) < 0:
            steps_nX = view.steps_nX
            if steps_nX is not None and not self._always and mapped.is_whole():
                mapped.used = True
                if out.nbytes < _STREAM_BYTES:
                    out[...] = steps_nX[start - before : stop - before]
                else:
                    _stream(out, steps_nX[start - before : stop - before])
                return
        step = start
        while step < stop:
            shard, first = divmod(step, shard_steps)
            count = min(stop - step, shard_steps - first)
            self._read_shard(shard, first, first + count, out[step - start : step - start + count], part, out.nbytes)
            step += count

    def in_place(self, start: int, stop: int) -> np.ndarray | None:
        """Steps start..stop (n, ...) as they lie in the mapped file, to be read only and soon; None where they have to be
        copied: they lie in two shards or out of order, or their checksums are to be compared.
        """
        shard = start // self._shard_steps
        before = shard * self._shard_steps
        if self._always or not start < stop <= before + self._shard_steps or self._checked_T.find(0, start, stop) >= 0:
            return None
        _, view = self._view(shard)
        return None if view.steps_nX is None else view.steps_nX[start - before : stop - before]

    def will_read(self, start: int, stop: int) -> None:
        """Asks the system to fetch these steps from the disk, or from object storage, now; returns at once."""
        stored = self._chunk_bytes + CRC_BYTES
        for shard in range(start // self._shard_steps, -(-stop // self._shard_steps)):
            if self._mapped[shard].view is None and not self._files.fetch_soon(self._shard_names[shard]):
                continue
            mapped, view = self._view(shard)
            before = shard * self._shard_steps
            first, last = max(start - before, 0), min(stop - before, len(view.chunks))
            if view.steps_nX is not None:
                mapped.will_read(first * stored, last * stored)

    def checksums(self, shard: int) -> bytes:
        """The stored checksums of a shard's chunks, in the order of the chunks."""
        _, view = self._view(shard)
        return b"".join(chunk[-CRC_BYTES:].tobytes() for chunk in view.chunks)

    def _read_shard(self, shard: int, first: int, stop: int, out: np.ndarray, part: Part | None, total_bytes: int) -> None:
        _, view = self._view(shard)
        before = shard * self._shard_steps
        if view.steps_nX is None or self._always or self._checked_T.find(0, before + first, before + stop) >= 0:
            self._read_checked(shard, first, stop, out, part, view, total_bytes)
            return
        steps_nX = view.steps_nX[first:stop] if part is None else view.steps_nX[first:stop, *part]
        copy = _copy if total_bytes < _STREAM_BYTES else _stream
        copy(out, steps_nX)

    def _read_checked(
        self, shard: int, first: int, stop: int, out: np.ndarray, part: Part | None, view: _ShardView, total_bytes: int
    ) -> None:
        """One step after the other: copied, and then checked in the copy, which the cache still holds."""
        copy = _copy if total_bytes < _STREAM_BYTES else _stream
        checked_T, before = self._checked_T, shard * self._shard_steps
        # What is checked has to be the whole chunk, in one piece.
        in_copy = part is None and out.flags.c_contiguous
        for i in range(first, stop):
            step_X = self._step(view.chunks[i]) if view.steps_nX is None else view.steps_nX[i]
            copied = out[i - first]
            copy(copied, step_X if part is None else step_X[part])
            if self._always or (self._verify == "first" and not checked_T[before + i]):
                if crc32c(copied if in_copy else step_X) != view.checksums_n[i]:
                    raise self._step_error(shard, i, "the chunk of step {step} fails its crc32c")
            if not checked_T[before + i]:
                if has_hole(copied if in_copy else step_X):
                    raise self._step_error(shard, i, "step {step} holds a fill value (a hole)")
                checked_T[before + i] = 1

    def _view(self, shard: int) -> tuple[MappedFile, _ShardView]:
        mapped = self._mapped[shard]
        view = mapped.view
        if view is None:
            return self._map(shard)
        self._files.check_whole(self._shard_names[shard], mapped)
        mapped.used = True
        return mapped, view

    def _map(self, shard: int) -> tuple[MappedFile, _ShardView]:
        mapped = self._files.map(self._shard_names[shard])
        data = mapped.data
        if data is None:
            # The pool is smaller than the number of threads that read.
            return self._map(shard)
        if self._mapped[shard].identity != mapped.identity:
            first = shard * self._shard_steps
            num_chunks = self.spec.chunks_in_shard(shard)
            self._checked_T[first : first + num_chunks] = bytes(num_chunks)
        view = self._viewed(shard, data)
        mapped.view = view
        self._mapped[shard] = mapped
        return mapped, view

    def _viewed(self, shard: int, data: np.ndarray) -> _ShardView:
        num_chunks, stored = self.spec.chunks_in_shard(shard), self._chunk_bytes + CRC_BYTES
        offsets = self._irregular_offsets(shard, data)
        if offsets is not None:
            found = [data[offset : offset + stored] for offset in offsets]
            return _ShardView(found, None, [int(chunk[-CRC_BYTES:].view("<u4")[0]) for chunk in found])
        chunks = data[: num_chunks * stored].reshape(num_chunks, stored)
        step_X = self._step(chunks[0])
        steps_nX = np.ndarray((num_chunks, *step_X.shape), self._dtype, data, strides=(stored, *step_X.strides))
        return _ShardView(chunks, steps_nX, chunks[:, -CRC_BYTES:].view("<u4")[:, 0])

    def _step(self, chunk: np.ndarray) -> np.ndarray:
        """The values of a chunk that is followed by its checksum."""
        return chunk[:-CRC_BYTES].view(self._dtype).reshape(self.spec.shape[1:])

    def _step_error(self, shard: int, chunk: int, what: str) -> CorruptStoreError:
        return self._files.error(self._shard_names[shard], what.format(step=shard * self._shard_steps + chunk))

    def _irregular_offsets(self, shard: int, data: np.ndarray) -> np.ndarray | None:
        """None where the chunks lie in order; otherwise each chunk's offset. Raises where one is missing."""
        spec, num_chunks = self.spec, self.spec.chunks_in_shard(shard)
        where = self._shard_names[shard]
        expected = shard_index(num_chunks, spec.chunk_bytes, spec.shard_steps)
        raw = data[-len(expected):].tobytes()
        if raw == expected and len(data) >= spec.shard_size(shard):
            return None
        if len(raw) < len(expected) or crc32c(raw) != CRC_RESIDUE:
            raise self._files.error(where, "the index fails its crc32c")
        index = np.frombuffer(raw, "<u8", count=spec.shard_steps * INDEX_ENTRY_BYTES // 8).reshape(-1, 2)[:num_chunks]
        missing = np.flatnonzero(index[:, 0] == NO_CHUNK)
        if len(missing):
            raise self._files.error(where, f"the chunk of step {shard * spec.shard_steps + missing[0]} is missing")
        stored = self._chunk_bytes + CRC_BYTES
        if len(data) < stored or (index[:, 1] != stored).any() or (index[:, 0] > len(data) - stored).any():
            raise self._files.error(where, "the index points outside the file")
        return index[:, 0].astype(np.int64)


def _copy(out: np.ndarray, values: np.ndarray) -> None:
    # Half the time of np.copyto before the first byte.
    out[...] = values


def _stream(out: np.ndarray, values: np.ndarray) -> None:
    """As `_copy` for equal types, for targets that do not stay in the cache."""
    bits = 8 * values.itemsize
    np.copyto(out.view(f"i{bits // 8}"), values.view(f"u{bits // 8}"), casting="unsafe")


class ZarrArray:
    """Steps of an array in any other Zarr form (compressed, chunked otherwise), read by zarr; every read is checked for
    holes.
    """

    def __init__(self, files: ArrayFiles):
        import zarr

        self._files = files
        self._array = self._checked(lambda: zarr.open_array(str(files.local_folder()), mode="r"))
        self.spec = ArraySpec(self._array.shape, str(self._array.dtype), ())

    def read(self, start: int, stop: int, out: np.ndarray, part: Part | None = None) -> None:
        """As `ShardedArray.read`."""
        values = self._checked(lambda: self._array[start:stop] if part is None else self._array[start:stop, part[0], part[1]])
        if values.size and has_hole(np.ascontiguousarray(values)):
            raise self._files.error("", f"steps {start} to {stop - 1} hold a fill value (a hole)")
        out[...] = values

    def in_place(self, start: int, stop: int) -> None:
        """As `ShardedArray.in_place`: never."""

    def will_read(self, start: int, stop: int) -> None:
        """Does nothing: which bytes zarr will read only zarr knows."""

    def checksums(self, shard: int) -> bytes:
        """Raises `CorruptStoreError`: what a commit says of chunks can be compared in the store's own layouts only."""
        raise self._files.error("", "its commit gives checksums of chunks, which this layout does not have; expected two numbers")

    def _checked(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise self._files.error("", f"zarr cannot read it ({error})") from None


def read_whole(files: ArrayFiles, spec: ArraySpec) -> np.ndarray:
    """A single-chunk array, its crc32c checked; owned by the caller and read-only."""
    file = spec.shard_name(0)
    data = files.read_bytes(file)
    if len(data) != spec.shard_size(0):
        expected = f"expected {spec.shard_size(0)} bytes for shape {spec.shape}"
        raise files.error(file, f"{expected}, got {len(data)}")
    if crc32c(data) != CRC_RESIDUE:
        raise files.error(file, "the chunk fails its crc32c")
    if crc32c_hex(data[-CRC_BYTES:]) != files.stamp(file).chunks:
        raise files.error(file, "a chunk that is whole, but not the one that was committed")
    array = np.frombuffer(data, spec.dtype, count=math.prod(spec.shape)).reshape(spec.shape)
    if array.dtype.kind == "f" and has_hole(array):
        raise files.error(file, "a value is not finite")
    return array
