"""Asking the system for windows before they are read: the order is known, so the disk need not wait for the reader.

An order of random windows defeats the system's own read-ahead. To ask for what lies in memory already costs about a sixth of
reading it, so that is done only now and then, until the disk is used again.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

try:
    import resource
except ModuleNotFoundError:  # not on Windows
    resource = None

ANNOUNCED_BYTES = 32 * 2**20
"""So much is asked for before it is read: enough to hide a disk's latency. To ask takes as long as the disk's queue is full."""

WARM_AFTER_BATCHES = 8
PROBED_BATCHES = 8
"""While nothing comes from the disk, one batch of so many is asked for."""


def disk_uses() -> int | None:
    """A count that grows whenever this process reads from a disk or waits for a page; None where nobody counts."""
    if resource is None:
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_inblock + usage.ru_majflt


class Announcer:
    """Asks for batches ahead of their reading: the next one always, and more as long as they are small.

    `will_read(position)` asks for a batch; `num_bytes(position)` is its size.
    """

    def __init__(
        self, will_read: Callable[[int], None], num_bytes: Callable[[int], int], num_batches: int,
        disk_uses: Callable[[], int | None] = disk_uses,
    ):
        self._will_read, self._num_bytes, self._num_batches = will_read, num_bytes, num_batches
        self._disk_uses, self._last_uses, self._quiet_batches = disk_uses, disk_uses(), 0
        self._lock = Lock()
        self._bytes_up_to = [0]

    def ask_ahead(self, position: int) -> None:
        """Called before the batch at `position` is read, by any thread; while one asks, the others read."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._look_at_the_disk()
            while self._wants_more(position):
                asked = len(self._bytes_up_to) - 1
                if self._quiet_batches < WARM_AFTER_BATCHES or asked % PROBED_BATCHES == 0:
                    self._will_read(asked)
                    self._quiet_batches += 1
                    self._look_at_the_disk()
                self._bytes_up_to.append(self._bytes_up_to[-1] + self._num_bytes(asked))
        finally:
            self._lock.release()

    def _look_at_the_disk(self) -> None:
        uses = self._disk_uses()
        if uses is None or uses != self._last_uses:
            self._last_uses, self._quiet_batches = uses, 0

    def _wants_more(self, position: int) -> bool:
        num_asked = len(self._bytes_up_to) - 1
        if num_asked == self._num_batches:
            return False
        ahead_bytes = self._bytes_up_to[-1] - self._bytes_up_to[min(position, num_asked)]
        return num_asked <= position + 1 or ahead_bytes < ANNOUNCED_BYTES
