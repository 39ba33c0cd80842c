"""The tube IoU of `stal`, worked by hand and against a loop over frames."""

import numpy as np
import pytest

from tests.diagnosis_cases import tube_iou_loop
from vjepa_loc.dataset import Dataset, Video
from vjepa_loc.events import Event
from vjepa_loc.metrics._tube_overlap import Tubes
from vjepa_loc.metrics.stal import covered_frames, seen_viou
from vjepa_loc.scoring_input import ScoringInput

SQUARE = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU 0.5 with SQUARE


def tube(start, end, frames, box=SQUARE):
    frames = np.array(frames, dtype=np.int64)
    return Event("v", "take", start, end, frames, np.tile(np.array(box, dtype=np.float64), (len(frames), 1)))


def tube_ious(truths, predictions):
    """Of every truth with every prediction, (N, M)."""
    scored = [prediction.replace(score=0.5) for prediction in predictions]
    inputs = ScoringInput.of(Dataset(("take",), {"v": Video("v", num_frames=100)}, truths), scored)
    at_truth, at = (index.ravel() for index in np.indices((len(truths), len(predictions))))
    tubes, truth_tubes = Tubes.of(inputs.predictions, 1), Tubes.of(inputs.truths, 1)
    return seen_viou(covered_frames(inputs.truths), tubes, truth_tubes, at, at_truth).reshape(len(truths), -1)


def tube_iou(truth, prediction):
    return tube_ious([truth], [prediction])[0, 0]


def test_tube_iou_by_hand():
    truth = tube(0, 4, range(4))
    assert tube_iou(truth, truth) == 1
    # Two common frames at 0.5, union of six frames.
    assert tube_iou(truth, tube(2, 6, range(2, 6), HALF)) == pytest.approx(1 / 6)
    assert tube_iou(truth, tube(10, 12, [10, 11])) == 0


def test_frames_hidden_in_the_truth_are_left_out_on_both_sides():
    truth = tube(0, 6, [0, 1, 4, 5])
    # The prediction's boxes on the hidden frames 2 and 3 cost nothing, the one on frame 6 does.
    assert tube_iou(truth, tube(0, 7, range(7))) == pytest.approx(4 / 5)
    assert tube_iou(truth, tube(2, 4, [2, 3])) == 0
    # What the prediction leaves out counts against it.
    assert tube_iou(truth, tube(0, 6, [0, 1])) == pytest.approx(2 / 4)


def test_the_hidden_frames_of_a_fractional_interval_are_those_it_covers():
    # [0.6, 3.5) covers frames 1 and 2 (centres 1.5, 2.5), not 0 (0.5) and not 3 (3.5 is the open end).
    truth = tube(0.6, 3.5, [1])
    assert tube_iou(truth, tube(0, 4, range(4))) == pytest.approx(1 / 3)


def test_a_one_frame_tube():
    truth = tube(7, 8, [7])
    assert tube_iou(truth, tube(7, 8, [7], HALF)) == pytest.approx(0.5)


def test_without_boxes_there_is_no_tube():
    assert tube_iou(tube(0, 4, range(4)), tube(0, 4, [])) == 0


def random_tube(rng):
    start, end = np.sort(rng.uniform(0, 20, 2)) + [0, 1]
    frames = [f for f in range(25) if start <= f + 0.5 < end and rng.random() < 0.7]
    low = rng.uniform(0, 5, (len(frames), 2))
    boxes = np.hstack([low, low + rng.uniform(1, 6, (len(frames), 2))])
    return Event("v", "take", start, end, np.array(frames, dtype=np.int64), boxes)


def test_tube_ious_against_a_loop_over_frames():
    rng = np.random.default_rng(0)
    truths = [one for one in (random_tube(rng) for _ in range(20)) if one.num_boxes]
    predictions = [random_tube(rng) for _ in range(15)]
    predictions[7] = tube(3, 9, [])
    expected = [[tube_iou_loop(truth, prediction) for prediction in predictions] for truth in truths]
    np.testing.assert_allclose(tube_ious(truths, predictions), expected, rtol=0, atol=1e-12)
    assert (np.array(expected) > 0).mean() > 0.2
