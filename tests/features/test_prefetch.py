"""Running ahead of the consumer: order, bound, errors, and leaving early."""

import threading
import time

import pytest

from features.prefetch import Prefetched


def test_items_come_in_order_and_end():
    with Prefetched(iter(range(100)), max_items=3) as items:
        assert list(items) == list(range(100))


def test_the_source_runs_ahead_by_no_more_than_the_bound():
    made = []

    def source():
        for number in range(20):
            made.append(number)
            yield number

    with Prefetched(source(), max_items=3) as items:
        iterator = iter(items)
        assert next(iterator) == 0
        deadline_s = time.monotonic() + 5
        while len(made) < 5 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        time.sleep(0.05)
        # One was taken, three wait, one is in the hand of the thread.
        assert len(made) == 5


def test_an_error_comes_where_it_was_raised():
    def source():
        yield 1
        raise ValueError("broken")

    with Prefetched(source(), max_items=3) as items:
        iterator = iter(items)
        assert next(iterator) == 1
        with pytest.raises(ValueError, match="broken"):
            next(iterator)


def test_leaving_early_interrupts_and_closes_the_source():
    interrupted, closed = threading.Event(), threading.Event()

    def source():
        try:
            yield 1
            assert interrupted.wait(10)
            yield 2
        finally:
            closed.set()

    with Prefetched(source(), max_items=1, interrupt=interrupted.set) as items:
        assert next(iter(items)) == 1
    assert interrupted.is_set() and closed.is_set()


def test_reading_to_the_end_does_not_interrupt():
    interrupted = threading.Event()
    with Prefetched(iter([1]), max_items=1, interrupt=interrupted.set) as items:
        assert list(items) == [1]
    assert not interrupted.is_set()
