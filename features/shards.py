"""Writing step arrays as they come: a shard is its chunks in order, each with its crc32c, then the index with its own.

Nothing is read back or moved, memory does not grow with the video, and a shard of 512 steps is one sequential file
(Zarr v3, codec `sharding_indexed`, index at the end).
"""

import os
from pathlib import Path

import numpy as np

from features.checksum import CRC_BYTES, CRC_RESIDUE, crc32c, joined_crc32c, with_crc32c
from features.commits import FileStamp
from features.durable import make_folders, write_all
from features.zarr_layout import ArraySpec

NO_CHUNK = np.iinfo(np.uint64).max
# Linux takes at most 1024 buffers per call: a chunk and its checksum are two.
_CHUNKS_PER_CALL = 512


def shard_index(num_chunks: int, chunk_bytes: int, shard_steps: int) -> bytes:
    """The index of a shard whose `num_chunks` chunks lie in order, with its checksum."""
    index = np.full((shard_steps, 2), NO_CHUNK, "<u8")
    stored = chunk_bytes + CRC_BYTES
    index[:num_chunks, 0] = np.arange(num_chunks, dtype=np.uint64) * np.uint64(stored)
    index[:num_chunks, 1] = stored
    return with_crc32c(index.tobytes())


class ShardWriter:
    """Appends steps to the shards of one array below `folder`, whose parent exists; `close` returns the stamp of every file it wrote.
    """

    def __init__(self, folder: Path, spec: ArraySpec):
        self._folder = folder
        self._spec = spec
        self._fd: int | None = None
        self._num_chunks = 0
        self._shard = 0
        self._size = 0
        self._crc = self._chunks_crc = 0
        self._stamps: dict[str, FileStamp] = {}

    def append(self, steps: np.ndarray) -> None:
        """Writes `steps` of shape (n, ...), C-contiguous and of the array's dtype. Raises `OSError`."""
        spec = self._spec
        if steps.dtype != spec.dtype or steps.shape[1:] != spec.shape[1:]:
            expected = ", ".join(["n", *map(str, spec.shape[1:])])
            raise ValueError(f"expected ({expected}) {spec.dtype}, got {steps.shape} {steps.dtype}")
        chunks = np.ascontiguousarray(steps).reshape(len(steps), spec.chunk_bytes // steps.itemsize).view(np.uint8)
        while len(chunks):
            if self._fd is None:
                self._open()
            room = min(spec.shard_steps - self._num_chunks, _CHUNKS_PER_CALL)
            self._write(chunks[:room])
            chunks = chunks[room:]
            if self._num_chunks == spec.shard_steps:
                self._finish_shard()

    def close(self) -> dict[str, FileStamp]:
        """Finishes the last shard; the stamps are by name below `folder`."""
        if self._fd is not None:
            self._finish_shard()
        return self._stamps

    def abort(self) -> None:
        """Closes the file that is open, without an index: no reader will take it for a shard."""
        if self._fd is not None:
            self._close()

    def _open(self) -> None:
        path = self._folder / self._spec.shard_name(self._shard)
        make_folders(path.parent, self._folder.parent)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._num_chunks = self._size = self._crc = self._chunks_crc = 0

    def _encode(self, chunk: np.ndarray) -> np.ndarray | bytes:
        """The bytes of a chunk as they are stored."""
        return chunk

    def _index(self) -> bytes:
        """The index of the chunks written to this shard, with its checksum."""
        return shard_index(self._num_chunks, self._spec.chunk_bytes, self._spec.shard_steps)

    def _write(self, chunks: np.ndarray) -> None:
        buffers, size = [], 0
        for chunk in chunks:
            data = self._encode(chunk)
            checksum = crc32c(data).to_bytes(CRC_BYTES, "little")
            buffers += [memoryview(data), checksum]
            size += len(data) + CRC_BYTES
            self._chunks_crc = crc32c(checksum, self._chunks_crc)
            # What the file's own crc32c becomes is known without a second pass over the data.
            self._crc = joined_crc32c(self._crc, CRC_RESIDUE, len(data) + CRC_BYTES)
        written = os.writev(self._fd, buffers)
        if written < size:
            write_all(self._fd, b"".join(buffers)[written:])
        self._size += size
        self._num_chunks += len(chunks)

    def _close(self) -> None:
        # Gone even where closing is refused: closed again, the number may be another thread's file by then.
        fd, self._fd = self._fd, None
        os.close(fd)

    def _finish_shard(self) -> None:
        index = self._index()
        write_all(self._fd, index)
        if self._num_chunks == self._spec.shard_steps:
            # Spreads a long video's writing over its length; what is left is synced with the small files.
            os.fsync(self._fd)
        self._close()
        crc = crc32c(index, self._crc)
        stamp = FileStamp(self._size + len(index), f"{crc:08x}", f"{self._chunks_crc:08x}")
        self._stamps[self._spec.shard_name(self._shard)] = stamp
        self._shard += 1


def shard_writer(folder: Path, spec: ArraySpec) -> ShardWriter:
    """The writer of one step array, compressed where its spec says so."""
    if spec.compression == "none":
        return ShardWriter(folder, spec)
    from features.compressed_shards import CompressedShardWriter

    return CompressedShardWriter(folder, spec)
