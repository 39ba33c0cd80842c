import threading
import time

import pytest

from heads.training.read_ahead import ReadAhead


def reader_threads():
    return [thread for thread in threading.enumerate() if thread.name == "window-reader"]


@pytest.mark.parametrize("num_threads", [1, 2, 7])
def test_items_come_in_order_whoever_is_faster(num_threads):
    def read(position):
        time.sleep(0.002 * (position % 3))
        return position

    reading = ReadAhead(read, 20, num_threads, num_threads)
    assert list(reading) == list(range(20))
    reading.close()
    assert not reader_threads()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_reading_ahead_is_bounded_by_what_was_asked_for(num_threads):
    begun = []
    reading = ReadAhead(lambda position: begun.append(position) or position, 100, num_threads, 4)
    time.sleep(0.05)
    assert sorted(begun) == [0, 1, 2, 3]
    assert next(reading) == 0
    time.sleep(0.05)
    assert sorted(begun) == [0, 1, 2, 3, 4], "the memory of item 0 is still in use"
    reading.close()
    assert not reader_threads()


def test_an_error_comes_in_its_place():
    def read(position):
        if position == 2:
            raise OSError("the disk is gone")
        return position

    reading = ReadAhead(read, 9, 3, 4)
    assert [next(reading), next(reading)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(reading)
    assert not reader_threads()


def test_nothing_to_read_is_no_item():
    reading = ReadAhead(lambda position: position, 0, 2, 2)
    assert list(reading) == []


def test_who_waits_for_an_item_is_told_that_the_reading_ended():
    released = threading.Event()
    reading = ReadAhead(lambda position: released.wait(5), 3, 1, 1)
    threading.Timer(0.05, lambda: (threading.Timer(0.05, released.set).start(), reading.close())).start()
    with pytest.raises(RuntimeError, match="a later reading uses the same memory"):
        next(reading)
