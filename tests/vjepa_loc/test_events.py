"""What an event accepts, which frames it covers, and what it answers to values that make no sense."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event

BOX = [10.0, 20.0, 30.0, 40.0]


def make(**changes) -> Event:
    values = {
        "video_id": "v1",
        "label": "take",
        "start_frame": 3.0,
        "end_frame": 6.0,
        "box_frames_K": np.array([3, 5]),
        "boxes_K4": np.array([BOX, BOX]),
    }
    return Event(**(values | changes))


def test_arrays_are_copied_and_read_only():
    frames_K = np.array([3, 5])
    event = make(box_frames_K=frames_K, box_scores_K=[0.5, 0.25])
    frames_K[0] = 4
    assert event.box_frames_K.tolist() == [3, 5]
    assert event.box_frames_K.dtype == np.int64 and event.boxes_K4.dtype == np.float64
    assert event.num_boxes == 2 and make(box_frames_K=np.int32([3, 5])).box_frames_K.dtype == np.int64
    for array in (event.box_frames_K, event.boxes_K4, event.box_scores_K):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_an_event_without_boxes_has_empty_arrays():
    event = Event("v1", "take", 0, 1)
    assert event.box_frames_K.shape == (0,) and event.boxes_K4.shape == (0, 4)
    assert event.box_scores_K is None and event.num_boxes == 0
    assert Event("v1", "take", 0, 1, box_scores_K=[]).box_scores_K is None


def test_numbers_may_be_numpy_scalars_and_become_floats():
    event = make(start_frame=np.float32(2.5), end_frame=np.int64(6), score=np.float64(0.5))
    assert [type(value) for value in (event.start_frame, event.end_frame, event.score)] == [float] * 3


@pytest.mark.parametrize(
    ("start", "end", "covered"),
    [
        (3, 6, [3, 4, 5]),
        (3.5, 6.5, [3, 4, 5]),
        (3.6, 6.6, [4, 5, 6]),
        (3, 3.5, []),
        (3, 3.6, [3]),
        (3.6, 4.2, []),
        (0, 1, [0]),
        (0, 0.25, []),
    ],
)
def test_covered_frames_by_hand(start, end, covered):
    event = Event("v1", "take", start, end)
    assert list(range(*event.covered_frames())) == covered


@settings(max_examples=200, deadline=None)
@given(start=st.floats(0, 1e6), length=st.floats(1e-6, 100))
def test_covered_frames_are_those_that_covers_says(start, length):
    if not start < start + length:
        return
    event = Event("v1", "take", start, start + length)
    first, stop = event.covered_frames()
    assert all(event.covers(frame) for frame in range(first, stop))
    assert not event.covers(first - 1) and not event.covers(stop)


def test_replace_checks_again():
    event = make()
    assert event.replace(score=0.5).score == 0.5 and event.score is None
    with pytest.raises(DatasetError, match="end_frame"):
        event.replace(end_frame=3.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video_id": ""}, "video_id: expected a non-empty string, got ''"),
        ({"label": None}, "label: expected a non-empty string, got None"),
        ({"id": 7}, "id: expected a non-empty string, got 7"),
        ({"start_frame": "3"}, "start_frame: expected a number, got '3'"),
        ({"start_frame": True}, "start_frame: expected a number, got True"),
        ({"start_frame": float("nan")}, "start_frame: expected a finite number, got nan"),
        ({"end_frame": float("inf")}, "end_frame: expected a finite number, got inf"),
        ({"end_frame": 10**400}, "end_frame: expected a finite number, got inf"),
        ({"start_frame": -0.5}, "start_frame: expected 0 or later, got -0.5"),
        ({"start_frame": 6.0}, "end_frame: expected later than start_frame 6.0, got 6.0"),
        ({"score": float("nan")}, "score: expected a finite number, got nan"),
        ({"extra": None}, "extra: expected a dict, got NoneType"),
        ({"box_frames_K": [3.0, 5.0]}, r"box_frames_K: expected whole frame .* \(K,\), got float64 \(2,\)"),
        ({"box_frames_K": [5, 3]}, "box_frames_K: expected ascending frames, each once"),
        ({"box_frames_K": [3, 3]}, "box_frames_K: expected ascending frames, each once"),
        ({"boxes_K4": [BOX]}, r"boxes_K4: expected shape \(2, 4\), got \(1, 4\)"),
        ({"box_frames_K": [3, 6]}, r"boxes, frame 6: expected a frame that the event covers \(3 to 5\)"),
        ({"box_frames_K": [2, 5]}, r"boxes, frame 2: expected a frame that the event covers \(3 to 5\)"),
        ({"start_frame": 3.6, "end_frame": 4.2}, r"boxes, frame 3: .* covers \(none\)"),
        ({"boxes_K4": [BOX, [1, 2, np.nan, 4]]}, "boxes, frame 5: expected finite numbers"),
        ({"boxes_K4": [BOX, [30, 20, 30, 40]]}, "boxes, frame 5: expected x1 < x2 and y1 < y2, got a box without area"),
        ({"boxes_K4": [[10, 40, 30, 20], BOX]}, "boxes, frame 3: .* without area"),
        ({"box_scores_K": [0.5]}, r"box_scores_K: expected shape \(2,\), got \(1,\)"),
        ({"box_scores_K": [0.5, np.inf]}, "boxes, frame 5: expected a finite score"),
    ],
)
def test_values_that_make_no_sense_are_named(changes, message):
    with pytest.raises(DatasetError, match=message):
        make(**changes)


def test_scores_without_boxes_are_refused():
    with pytest.raises(DatasetError, match="box_scores_K: expected none without boxes, got 1"):
        Event("v1", "take", 0, 1, box_scores_K=[0.5])
