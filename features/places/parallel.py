"""Requests that wait for a network, several at a time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")

# Many small requests wait side by side; few large ones fill the line.
SMALL_AT_ONCE = 16
LARGE_AT_ONCE = 4


def side_by_side(call: Callable[[str], _T], names: Iterable[str], at_once: int) -> Iterator[_T]:
    """The results in the order of `names`. Where one raises, those that have not begun are left."""
    pool = ThreadPoolExecutor(at_once)
    try:
        yield from pool.map(call, names)
    finally:
        pool.shutdown(cancel_futures=True)
