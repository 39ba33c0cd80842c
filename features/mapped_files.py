"""Memory-mapped files of a store, held open in one bounded pool, so that a store of any number of videos can be read."""

import ctypes
import mmap
import os
import threading
import weakref
from collections import deque
from time import monotonic
from typing import Any, Self

import numpy as np

# Each mapping holds a file descriptor, of which a process usually has 1024.
MAX_OPEN_FILES = 256


# `mmap.madvise` keeps all other threads waiting while the system hands the requests to the disk; a call through ctypes
# does not.
_posix_madvise = getattr(ctypes.CDLL(None), "posix_madvise", lambda *arguments: None)
_posix_madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_WILLNEED = 3
_LOOK_HOLDS_S = 1e-3


class MappedFile:
    """One file's bytes, to be read only.

    `identity` (inode, size, mtime) tells it from another file of its name. `view` is for whoever reads it: whatever was
    derived from `data` and has to go with it. The pool may close a file at any time: both are None from then on, and what
    somebody still looks at lives on until it is let go.
    """

    __slots__ = ("_mapping", "_whole_until_s", "data", "identity", "size", "used", "view", "__weakref__")

    def __init__(self, mapping: mmap.mmap | None, identity: tuple[int, int, int]):
        self._mapping = mapping
        self.identity = identity
        self.size = identity[1]
        self.data: np.ndarray | None = None if mapping is None else np.frombuffer(mapping, np.uint8)
        self.view: Any = None
        self.used = True
        self._whole_until_s = 0.0

    @classmethod
    def of(cls, path: str) -> Self:
        """Raises `OSError`; `ValueError` for an empty file."""
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            # A private mapping: torch takes no read-only memory, and what is written by mistake never reaches the file.
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return cls(mapping, (status.st_ino, len(mapping), status.st_mtime_ns))

    def is_whole(self) -> bool:
        """Whether the file still has the length that it was mapped with: touching what was cut off kills the process.

        A look holds for a millisecond, the time of a large copy, within which nothing can be known anyway.
        """
        now_s = monotonic()
        if now_s < self._whole_until_s:
            return True
        mapping = self._mapping
        if mapping is not None and mapping.size() != self.size:
            return False
        self._whole_until_s = now_s + _LOOK_HOLDS_S
        return True

    def will_read(self, start: int, stop: int) -> None:
        """Asks the system to fetch these bytes from the disk now; returns at once."""
        data = self.data
        if data is not None and start < stop:
            start -= start % mmap.PAGESIZE
            _posix_madvise(data.ctypes.data + start, stop - start, _WILLNEED)

    def close(self) -> None:
        self.data = self.view = self._mapping = None


UNOPENED = MappedFile(None, (0, 0, 0))
"""What stands for a file before it is opened: closed for good."""


class MappedFiles:
    """Opens files and closes those that were not used for longest, roughly: one that was used since it was last looked
    at gets another turn (the clock algorithm), so that using a file costs no lock.
    """

    def __init__(self, max_files: int = MAX_OPEN_FILES):
        self._max_files = max_files
        # A file that nobody reads any more is let go at once: it may have been removed, and its space would stay taken.
        self._files: deque[weakref.ref[MappedFile]] = deque()
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            # A thread that holds the lock does not exist in a forked child.
            os.register_at_fork(after_in_child=self._renew_lock)

    def open(self, path: str) -> MappedFile:
        """Raises as `MappedFile.of`."""
        mapped = MappedFile.of(path)
        with self._lock:
            self._files.append(weakref.ref(mapped))
            while len(self._files) > self._max_files:
                reference = self._files.popleft()
                oldest = reference()
                if oldest is None:
                    continue
                if oldest.used and oldest is not mapped:
                    oldest.used = False
                    self._files.append(reference)
                else:
                    oldest.close()
        return mapped

    def __len__(self) -> int:
        return len(self._files)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


FILES = MappedFiles()
