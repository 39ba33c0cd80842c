"""An iterator that runs ahead of its consumer by a bounded number of items, in a thread of its own.

Extraction uses it so that frames are decoded and received while the encoder is at work.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

ItemT = TypeVar("ItemT")

# How long a full queue is waited for before looking whether the consumer has left.
_LOOK_UP_S = 0.1


class Prefetched(Generic[ItemT]):
    """Iterates over `source` with at most `max_items` waiting; an error of the source is raised where it would have come.

    A context manager. Leaving it before the end calls `interrupt`, which should make a source that waits raise or go on, then
    closes the source and waits for that.
    """

    def __init__(self, source: Iterator[ItemT], max_items: int, interrupt: Callable[[], object] = lambda: None):
        self._source = source
        self._interrupt = interrupt
        self._ended = False
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue(max_items)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetched[ItemT]":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._left.set()
        if not self._ended:
            self._interrupt()
        self._thread.join()

    def __iter__(self) -> Iterator[ItemT]:
        while True:
            kind, value = self._queue.get()
            self._ended = kind != "item"
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    def _run(self) -> None:
        last: tuple[str, Any] = ("end", None)
        try:
            with contextlib.closing(self._source) if hasattr(self._source, "close") else contextlib.nullcontext():
                for item in self._source:
                    if not self._put(("item", item)):
                        return
        except BaseException as error:
            last = ("error", error)
        self._put(last)

    def _put(self, entry: tuple[str, Any]) -> bool:
        """False where the consumer has left."""
        while not self._left.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(entry, timeout=_LOOK_UP_S)
                return True
        return False
