"""Clips between decoders and encoders: bounded, in batches of one shape, oldest first."""

import threading
import time

import numpy as np
import pytest

from features.clip_queue import ClipQueue
from features.clips import Clip

FRAME_BYTES = 2 * 2 * 3


class Job:
    failed = False


def clip(value: int, num_frames: int = 4) -> Clip:
    frames = tuple(np.full((2, 2, 3), value, np.uint8) for _ in range(num_frames))
    return Clip(frames, 0, slice(0, 2), np.arange(num_frames, dtype=np.int32).reshape(-1, 2), 0, num_frames - 1)


def values(clips) -> list[int]:
    return [int(queued.frames_THW3[0, 0, 0, 0]) for queued in clips]


@pytest.fixture
def queue() -> ClipQueue:
    return ClipQueue(num_buffers=4, clip_bytes=4 * FRAME_BYTES)


def in_thread(work) -> tuple[threading.Thread, list]:
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    return thread, found


def test_a_batch_is_full_while_more_clips_may_come(queue):
    queue.start_producing()
    queue.put(Job(), 0, clip(1))
    assert queue.take(2, wait=False) == []
    thread, found = in_thread(lambda: queue.take(2))
    time.sleep(0.05)
    assert not found
    queue.put(Job(), 1, clip(2))
    thread.join(5)
    assert values(found[0]) == [1, 2]
    queue.give_back(found[0])


def test_the_remainder_is_taken_when_nobody_produces(queue):
    queue.start_producing()
    queue.put(Job(), 0, clip(1))
    thread, found = in_thread(lambda: queue.take(3))
    queue.end_producing()
    thread.join(5)
    assert values(found[0]) == [1]
    queue.close()
    assert queue.take(3) == []


def test_batches_have_one_shape_and_keep_its_order(queue):
    queue.start_producing()
    for value, num_frames in [(1, 4), (2, 2), (3, 4), (4, 2)]:
        queue.put(Job(), 0, clip(value, num_frames))
    first, second = queue.take(2), queue.take(2)
    assert (values(first), values(second)) == ([1, 3], [2, 4])
    assert {queued.frames_THW3.shape for queued in second} == {(2, 2, 2, 3)}


def test_full_buffers_stop_who_puts_and_are_no_deadlock_for_who_waits_for_a_full_batch(queue):
    queue.start_producing()
    for value, num_frames in [(1, 4), (2, 2), (3, 4), (4, 2)]:
        queue.put(Job(), 0, clip(value, num_frames))
    thread, found = in_thread(lambda: queue.put(Job(), 0, clip(5)))
    time.sleep(0.05)
    assert not found
    taken = queue.take(3)
    assert values(taken) == [1, 3], "no shape has three, and none can come"
    queue.give_back(taken)
    thread.join(5)
    assert found == [True]


def test_a_failed_job_gives_its_buffers_to_the_others(queue):
    queue.start_producing()
    bad, good = Job(), Job()
    queue.put(good, 0, clip(7))
    for number in range(3):
        queue.put(bad, number, clip(number))
    waiting, found = in_thread(lambda: queue.put(bad, 3, clip(9)))
    bad.failed = True
    queue.drop_failed()
    waiting.join(5)
    assert found == [False]
    assert all(queue.put(good, number, clip(8)) for number in range(3))
    assert values(queue.take(4)) == [7, 8, 8, 8]


def test_frames_are_copied(queue):
    queue.start_producing()
    own = clip(1)
    queue.put(Job(), 0, own)
    own.frames[0][:] = 99
    assert values(queue.take(1)) == [1]


@pytest.mark.parametrize("is_first", [True, False])
def test_a_clip_that_cannot_be_copied_costs_no_buffer(queue, is_first):
    if not is_first:
        queue.put(Job(), 0, clip(1))
        queue.give_back(queue.take(1))
    broken = Clip((np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)), 0, slice(0, 1), np.zeros((1, 2), np.int32), 0, 1)
    for _ in range(10):
        with pytest.raises(ValueError):
            queue.put(Job(), 0, broken)
    putting, done = in_thread(lambda: queue.put(Job(), 0, clip(2)))
    putting.join(5)
    assert done == [True]
