"""Items computed by threads ahead of the one who asks for them, in order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")


class ReadAhead(Generic[Item]):
    """`read(position)` for the positions 0 to `num_items`, by `num_threads` threads, each of which computes whole items.

    The items come in order whatever the number of threads; an exception comes in its place and ends the iteration. At most
    `ahead` items are computed beyond the one that was handed out last: when item i is asked for, item i - 1 is done with and
    item i + `ahead` may be computed in its memory.
    """

    def __init__(self, read: Callable[[int], Item], num_items: int, num_threads: int, ahead: int):
        self._read, self._num_items, self._ahead = read, num_items, ahead
        self._lock = threading.Lock()
        self._has_item, self._has_room = threading.Condition(self._lock), threading.Condition(self._lock)
        self._ready: dict[int, tuple[Item | None, BaseException | None]] = {}
        self._begun, self._asked, self._closed = 0, 0, False
        self._threads = [
            threading.Thread(target=self._work, name="window-reader", daemon=True)
            for _ in range(min(num_threads, num_items))
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> ReadAhead[Item]:
        return self

    def __next__(self) -> Item:
        with self._lock:
            position = self._asked
            if position == self._num_items:
                raise StopIteration
            self._asked += 1
            self._has_room.notify()
            self._has_item.wait_for(lambda: position in self._ready or self._closed)
            if self._closed:
                raise RuntimeError("these items cannot be read on: a later reading uses the same memory")
            item, error = self._ready.pop(position)
        if error is not None:
            self.close()
            raise error
        return item

    def close(self) -> None:
        """Ends the threads, once they have finished the items they are at."""
        with self._lock:
            self._closed = True
            self._has_room.notify_all()
            self._has_item.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        # Of this thread alone: a second team of threads beside the one that trains costs more than it gives.
        torch.set_num_threads(1)
        while (position := self._next_position()) is not None:
            try:
                entry = self._read(position), None
            except BaseException as error:
                entry = None, error
            with self._lock:
                self._ready[position] = entry
                self._has_item.notify()

    def _next_position(self) -> int | None:
        with self._lock:
            self._has_room.wait_for(
                lambda: self._closed or self._begun == self._num_items or self._begun < self._asked + self._ahead
            )
            if self._closed or self._begun == self._num_items:
                return None
            self._begun += 1
            if self._begun == self._num_items:
                self._has_room.notify_all()
            return self._begun - 1
