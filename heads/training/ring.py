"""Memory of batches that is filled again and again: fresh tensors of this size are mostly page faults."""

from __future__ import annotations

import math
from collections.abc import Hashable

import torch
from torch import Tensor

from heads.training.read_ahead import ReadAhead


class Slot:
    """The tensors of one batch, by name; each grows to the largest size it was asked for. Pinned where there is a GPU."""

    def __init__(self):
        self._bytes: dict[Hashable, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def tensor(self, name: Hashable, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A contiguous tensor with whatever was there before."""
        num_bytes = math.prod(shape) * dtype.itemsize
        held = self._bytes.get(name)
        if held is None or len(held) < num_bytes:
            held = self._bytes[name] = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        return held[:num_bytes].view(dtype).view(shape)

    def mark_copied(self, device: torch.device) -> None:
        """The copies to `device` that were asked for so far have to be done before the slot is filled again."""
        if device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record(torch.cuda.current_stream(device))

    def wait_until_copied(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
            self._copied = None


class BatchRing:
    """Slots that are filled with batches in turn.

    One iteration at a time uses a ring; the next one that begins ends the one before.
    """

    def __init__(self):
        self.reading: ReadAhead | None = None
        self._slots: list[Slot] = []

    def begin(self, num_slots: int) -> None:
        """Ends the reading that uses the ring so far; the next one uses `num_slots` slots."""
        if self.reading is not None:
            self.reading.close()
            self.reading = None
        self._slots = [*self._slots, *(Slot() for _ in range(num_slots - len(self._slots)))][:num_slots]

    def slot(self, position: int) -> Slot:
        """For the batch at a position of the iteration; free of copies on their way to a device."""
        slot = self._slots[position % len(self._slots)]
        slot.wait_until_copied()
        return slot
