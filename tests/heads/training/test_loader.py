import threading
import time

import numpy as np
import pytest
import torch

from heads.training.loader import BufferRing, TokenReader, WindowBatches, in_order, read_ahead, shuffled
from heads.training.standardise import Standardisation
from heads.training.streams import VideoStream
from heads.training.targets import VideoTargets
from heads.training.windows import Window
from tests.token_stores import LABELS, make_event, make_video

EVENTS = {"a": [make_event("a", "take", 10, 30)], "b": []}


def reader(**options):
    streams = {
        "a": (VideoStream(make_video("a", EVENTS["a"], 60, seed=1), "tokens"),),
        "b": (VideoStream(make_video("b", EVENTS["b"], 45, seed=2, **options), "tokens"),),
    }
    return TokenReader(streams, (Standardisation.identity(8),))


def test_windows_are_padded_to_the_longest():
    batch = reader().read([Window("a", 0, 40), Window("b", 30, 40)], lambda shape: torch.full(shape, 7.0))
    stream = batch.streams[0]
    assert batch.window_frames == 40 and stream.tokens_BTHWC.shape == (2, 20, 4, 4, 8)
    assert stream.valid_BTHW[0].all() and stream.valid_BTHW[1, :8].all() and not stream.valid_BTHW[1, 8:].any()
    assert (stream.tokens_BTHWC[1, 8:] == 0).all()
    assert stream.step_start_BT[1, :8].tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    assert stream.step_end_BT[1, 7] == 15, "the last step ends with the video"
    assert all(torch.isfinite(v).all() for v in (stream.step_start_BT, stream.step_end_BT))


def test_a_batch_holds_one_grid():
    tokens = reader(input_hw=(16, 48))
    windows = [Window(v, start, 20) for start in range(10) for v in "aaab"]
    for batches in (in_order(windows, tokens, 4), shuffled(windows, tokens, 4, np.random.default_rng(0))):
        assert sorted(window for batch in batches for window in batch) == sorted(windows)
        assert all(len({window.video_id for window in batch}) == 1 for batch in batches)
    assert tokens.read([Window("b", 0, 20)]).streams[0].tokens_BTHWC.shape[2:4] == (2, 6)


def test_positions_are_frames_from_the_start_of_the_window():
    stream = reader().read([Window("a", 21, 30)]).streams[0]
    assert stream.step_start_BT[0, 0] == -1 and stream.step_end_BT[0, 0] == 1, "frames 20 and 21, the middle is inside"
    assert stream.first_seen_BT[0, 0] == 16 - 21 and stream.last_seen_BT[0, 0] == 31 - 21
    stream = reader().read([Window("b", -7, 40)]).streams[0]
    assert stream.step_start_BT[0, 0] == 7 and stream.tokens_BTHWC.shape[1] == 16, "nothing is read for what lies outside"


def test_targets_lie_on_the_steps_of_the_batch():
    tokens = reader()
    targets = {key: VideoTargets(EVENTS[key], LABELS, tokens.streams[key][0].extent) for key in EVENTS}
    windows = [Window("a", 0, 40), Window("b", 30, 40)]
    cut = tokens.cut_targets(windows, targets)
    assert [len(target) for target in cut] == [1, 0]
    assert all(target.has_box_NT.shape[1] == tokens.read(windows).streams[0].tokens_BTHWC.shape[1] for target in cut)


def test_batches_come_in_order_and_equal_direct_reading():
    tokens = reader()
    batches = in_order([Window(v, start, 20) for v in "ab" for start in (0, 10, 20, 25)], tokens, 3)
    loaded = WindowBatches(tokens, batches)
    assert len(loaded) == 3
    for _ in range(2):
        for windows, got in zip(batches, loaded, strict=True):
            assert got.windows == windows and got.targets is None
            assert torch.equal(got.batch.streams[0].tokens_BTHWC, tokens.read(windows).streams[0].tokens_BTHWC)


def test_a_batch_outlives_the_one_after_it():
    """The ring must not be overwritten while a batch is used and the next one is looked at."""
    batches = in_order([Window("a", start, 20) for start in range(12)], reader(), 1)
    before = None
    for got in WindowBatches(reader(), batches):
        tokens = got.batch.streams[0].tokens_BTHWC
        if before is not None:
            time.sleep(0.005)
            assert torch.equal(before[0], before[1])
        before = tokens, tokens.clone()


def test_shuffling_keeps_every_window_and_puts_similar_lengths_together():
    tokens, rng = reader(), np.random.default_rng(0)
    windows = [Window("a", start % 20, 2 + 2 * (start % 7)) for start in range(70)]
    first, second = (shuffled(windows, tokens, 4, rng) for _ in range(2))
    assert sorted(window for batch in first for window in batch) == sorted(windows) and first != second
    assert len(first) == len(second)
    lengths = [[tokens.num_steps(window) for window in batch] for batch in first]
    assert np.mean([max(batch) - min(batch) for batch in lengths]) < 1.5


def test_buffers_are_used_in_turn_and_grow():
    ring = BufferRing(2)
    first, second, third = ring.next((2, 3)), ring.next((2, 3)), ring.next((2, 2))
    assert first.data_ptr() == third.data_ptr() != second.data_ptr()
    assert ring.next((5, 5)).shape == (5, 5)


def test_reading_ahead_is_bounded_and_ends_when_left():
    made = []

    def items():
        for index in range(100):
            made.append(index)
            yield index

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 0
    time.sleep(0.05)
    assert len(made) <= 4
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "window-reader"]


def test_an_error_of_the_thread_reaches_the_caller():
    def items():
        yield 1
        raise OSError("the disk is gone")

    ahead = read_ahead(items(), 2)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
