import time

import numpy as np
import pytest

from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics import stal
from vjepa_loc.scoring_input import ScoringInput

SQUARE = (0.0, 0.0, 10.0, 10.0)
HALF = (0.0, 0.0, 10.0, 5.0)  # IoU 0.5 with SQUARE
AWAY = (50.0, 50.0, 60.0, 60.0)


def tube(start, end, score=None, box=SQUARE, frames=None, label="take", video="v"):
    """An event with one box on every frame it covers, or on `frames`."""
    if frames is None:
        frames = [f for f in range(int(start) - 1, int(end) + 2) if start <= f + 0.5 < end]
    boxes = np.tile(np.array(box), (len(frames), 1))
    return Event(video, label, start, end, np.array(frames, dtype=np.int64), boxes, score=score)


def bare(start, end, score=None):
    return tube(start, end, score, frames=[])


def compute(truths, predictions, thresholds=(0.5,)):
    videos = {video: Video(video, num_frames=100_000) for video in ("v", "w")}
    return stal.compute(ScoringInput.of(Dataset(("take", "return"), videos, truths), predictions, ["v", "w"]), thresholds=thresholds)


def average_precision(truths, predictions, threshold=0.5):
    (value,) = compute(truths, predictions, [threshold]).values.values()
    return value


def test_right_in_time_and_place():
    assert average_precision([tube(0, 10)], [tube(0, 10, 0.9)]) == 1
    assert average_precision([tube(0, 10)], [tube(0, 10, 0.9, AWAY)]) == 0
    # Half the box on every frame, or the whole box on half of the frames: IoU 0.5 either way, and that is enough.
    assert average_precision([tube(0, 10)], [tube(0, 10, 0.9, HALF)]) == 1
    assert average_precision([tube(0, 10)], [tube(0, 5, 0.9)]) == 1
    assert average_precision([tube(0, 10)], [tube(0, 5, 0.9, HALF)], 0.25) == 1
    assert average_precision([tube(0, 10)], [tube(0, 5, 0.9, HALF)], 0.3) == 0


def test_the_threshold_itself_is_reached():
    # Ten quotients of 0.6, added up, are a little less than 6.
    assert sum([0.6] * 10) < 6
    assert average_precision([tube(0, 10)], [tube(0, 10, 0.9, (0.0, 0.0, 10.0, 6.0))], 0.6) == 1


def test_hidden_frames_are_left_out_on_both_sides():
    truth = tube(0, 10, frames=[0, 1, 8, 9])
    assert average_precision([truth], [tube(0, 10, 0.9)], 0.95) == 1
    # Boxes on hidden frames alone find nothing.
    assert average_precision([truth], [tube(2, 8, 0.9)], 0.05) == 0
    # Two frames beyond the interval count: 4 / 6.
    assert average_precision([truth], [tube(0, 12, 0.9)], 0.66) == 1
    assert average_precision([truth], [tube(0, 12, 0.9)], 0.67) == 0


def test_fractional_frames_decide_what_is_hidden():
    # [1.5, 8.5) covers frames 1..7, of which 4 has no box; the prediction's frame 8 lies outside: 6 / 7.
    truth = tube(1.5, 8.5, frames=[1, 2, 3, 5, 6, 7])
    assert average_precision([truth], [tube(1, 9, 0.9)], 6 / 7) == 1
    # One hundredth later, frame 8 is covered, and as it has no box it is hidden.
    truth = tube(1.5, 8.51, frames=[1, 2, 3, 5, 6, 7])
    assert average_precision([truth], [tube(1, 9, 0.9)], 1.0) == 1


def test_one_frame_tubes():
    assert average_precision([tube(7, 8)], [tube(7, 8, 0.9, HALF)]) == 1
    assert average_precision([tube(7, 8)], [tube(8, 9, 0.9)]) == 0


def test_two_events_of_one_label_at_one_time_in_two_places():
    truths = [tube(0, 10), tube(0, 10, box=AWAY)]
    assert average_precision(truths, [tube(0, 10, 0.9), tube(0, 10, 0.8, AWAY)]) == 1
    assert average_precision(truths, [tube(0, 10, 0.9), tube(0, 10, 0.8)]) == 0.5


def test_truth_without_boxes_absorbs_any_number_that_reaches_it_in_time():
    truths = [tube(0, 10), bare(50, 60)]
    found = tube(0, 10, 0.1)
    absorbed = [tube(50, 60, 0.9), tube(50, 60, 0.8, AWAY), tube(50, 55, 0.7)]
    assert average_precision(truths, [*absorbed, found]) == 1
    # At 0.75 the last of them, with temporal IoU 0.5, is false.
    assert average_precision(truths, [*absorbed, found], 0.75) == 0.5
    # Without the bare truth all three are.
    assert average_precision(truths[:1], [*absorbed, found]) == 0.25


def test_a_prediction_tries_truth_with_boxes_before_it_is_absorbed():
    truths = [tube(0, 10), bare(0, 10)]
    assert average_precision(truths, [tube(0, 10, 0.9)]) == 1
    # What is found counts as true, and is not absorbed as well.
    assert average_precision(truths, [tube(50, 60, 0.9), tube(0, 10, 0.8)]) == 0.5
    # A second one finds the truth taken and is absorbed; so is one in the wrong place.
    assert average_precision(truths, [tube(0, 10, 0.9, AWAY), tube(0, 10, 0.8), tube(0, 10, 0.7)]) == 1


def test_absorbing_needs_the_same_label_and_video():
    bare_truth = bare(50, 60)
    truths = [tube(0, 10), bare_truth, tube(0, 10, label="return"), tube(0, 10, video="w")]
    other_label = tube(50, 60, 0.9, label="return")
    other_video = tube(50, 60, 0.9, video="w")
    found = [tube(0, 10, 0.1), tube(0, 10, 0.1, label="return"), tube(0, 10, 0.1, video="w")]
    assert average_precision(truths, found) == 1
    assert average_precision(truths, [other_label, *found]) == pytest.approx((1 + 0.5) / 2)
    assert average_precision(truths, [other_video, *found]) == pytest.approx((2 / 3 + 1) / 2)


def test_a_prediction_without_boxes_is_false():
    assert average_precision([tube(0, 10)], [bare(0, 10, 0.9), tube(0, 10, 0.8)]) == 0.5
    # Also where truth without boxes lies.
    assert average_precision([tube(0, 10), bare(50, 60)], [bare(50, 60, 0.9), tube(0, 10, 0.8)]) == 0.5


def test_equal_scores_keep_the_order_of_the_file():
    right, wrong = tube(0, 10, 0.5), tube(50, 60, 0.5)
    assert average_precision([tube(0, 10)], [right, wrong]) == 1
    assert average_precision([tube(0, 10)], [wrong, right]) == 0.5


def test_the_score_of_a_single_box_does_not_rank():
    right = tube(0, 10, 0.9)
    wrong = Event("v", "take", 50, 51, np.array([50]), np.array([SQUARE]), np.array([1.0]), score=0.1)
    assert average_precision([tube(0, 10)], [wrong, right]) == 1


def test_no_predictions_no_truth_and_truth_without_any_box():
    assert average_precision([tube(0, 10)], []) == 0
    assert compute([], [tube(0, 10, 0.9)]).values == {"stal/map@0.50": 0}
    result = compute([bare(0, 10), tube(0, 10, label="return")], [tube(0, 10, 0.9), tube(0, 10, 0.9, label="return")])
    assert result.values == {"stal/map@0.50": 1} and set(result.per_class) == {"return"}
    assert result.notes == [
        "stal: label 'take' has 1 truth events without boxes here and is not scored; 1 predictions are not counted"
    ]


def test_300_000_boxes_are_scored_in_seconds():
    rng = np.random.default_rng(0)

    def many(num, score):
        starts = rng.integers(0, 5000, num)
        return [
            Event(
                "v" if index % 2 else "w",
                ("take", "return")[index % 4 // 2],
                start,
                start + 30,
                np.arange(start, start + 30),
                np.tile([0.0, 0.0, 10.0, 10.0], (30, 1)) + rng.uniform(-2, 2, (1, 4)),
                score=rng.random() if score else None,
            )
            for index, start in enumerate(starts.tolist())
        ]

    truths, predictions = many(400, False), many(10_000, True)
    began_s = time.process_time()
    result = compute(truths, predictions, stal.DEFAULT_THRESHOLDS)
    assert time.process_time() - began_s < 15
    assert 0 < result.values["stal/map@0.50:0.95"] < result.values["stal/map@0.25"] < 1
