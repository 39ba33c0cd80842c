"""Resized frames in memory that the decoding process and its parent share: one writes a frame, the other reads it where it lies.

The ring is a file without a name that lives in memory; whoever holds its descriptor can map it. Which of its slots may be
written is said by messages (`features.decode_protocol`), so that a process that is killed leaves no lock behind.
Shape legend: n slots, h x w encoder input pixels.
"""

import mmap
import os
import tempfile

import numpy as np


class FrameRing:
    """One end of a ring. `fd` is inherited by the other end's process; `grow` is for the end that made it."""

    def __init__(self, fd: int):
        self.fd = fd
        self._mapped: mmap.mmap | None = None

    @classmethod
    def create(cls) -> "FrameRing":
        """An empty ring. Raises OSError where the system has no memory for it."""
        if hasattr(os, "memfd_create"):
            # Not below /dev/shm, which containers keep small.
            return cls(os.memfd_create("vjepa_loc_frames"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def grow(self, num_bytes: int) -> None:
        """Makes room for `num_bytes`; what is mapped stays valid."""
        if os.fstat(self.fd).st_size < num_bytes:
            os.ftruncate(self.fd, num_bytes)

    def frames(self, num_slots: int, height: int, width: int) -> np.ndarray:
        """uint8 (num_slots, height, width, 3), the same memory at both ends; `grow` has made room for it."""
        num_bytes = num_slots * height * width * 3
        if self._mapped is None or len(self._mapped) < num_bytes:
            # The old map lives as long as arrays look at it.
            self._mapped = mmap.mmap(self.fd, os.fstat(self.fd).st_size)
        return np.frombuffer(self._mapped, np.uint8, num_bytes).reshape(num_slots, height, width, 3)

    def close(self) -> None:
        """Gives the descriptor back; the memory goes with the last array that looks at it."""
        os.close(self.fd)
        self._mapped = None
