import numpy as np
import pytest

from vjepa_loc.events import Event
from vjepa_loc.overlap import box_iou, paired_box_iou, span_iou, tube_iou, tube_ious

SQUARE = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU 0.5 with SQUARE


def tube(start, end, frames, box=SQUARE):
    frames = np.array(frames, dtype=np.int64)
    return Event("v", "take", start, end, frames, np.tile(np.array(box, dtype=np.float64), (len(frames), 1)))


def test_span_iou_by_hand():
    iou = span_iou([[0, 10], [5, 6]], [[0, 10], [5, 15], [10, 20]])
    np.testing.assert_allclose(iou, [[1, 5 / 15, 0], [0.1, 0.1, 0]])


def test_box_iou_by_hand():
    iou = box_iou([SQUARE], [SQUARE, HALF, [5, 5, 15, 15], [10, 0, 20, 10], [12, 0, 20, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(iou, [[1, 0.5, 25 / 175, 0, 0, 0]])
    np.testing.assert_allclose(paired_box_iou([SQUARE, SQUARE], [HALF, SQUARE]), [0.5, 1])


def test_empty_and_reversed_shapes_overlap_nothing_and_never_give_nan():
    boxes = [[3, 3, 3, 3], [0, 0, 0, 0], [5, 5, 1, 1], SQUARE]
    with np.errstate(all="raise"):
        iou = box_iou(boxes, boxes)
        spans = span_iou([[3, 3], [5, 1]], [[3, 3], [5, 1], [0, 9]])
    np.testing.assert_array_equal(iou, np.diag([0, 0, 0, 1]))
    np.testing.assert_array_equal(spans, np.zeros((2, 3)))
    assert box_iou([], boxes).shape == (0, 4) and span_iou([[0, 1]], []).shape == (1, 0)


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \(N, 4\), got \(1, 5\)"):
        box_iou([[0, 0, 1, 1, 0.9]], [SQUARE])


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
    bare, full = tube(0, 4, []), tube(0, 4, range(4))
    assert tube_iou(bare, full) == tube_iou(full, bare) == tube_iou(bare, bare) == 0


def random_tube(rng):
    start, end = np.sort(rng.uniform(0, 20, 2)) + [0, 1]
    frames = [f for f in range(25) if start <= f + 0.5 < end and rng.random() < 0.7]
    low = rng.uniform(0, 5, (len(frames), 2))
    boxes = np.hstack([low, low + rng.uniform(1, 6, (len(frames), 2))])
    return Event("v", "take", start, end, np.array(frames, dtype=np.int64), boxes)


def tube_iou_loop(truth, prediction):
    """The definition, frame by frame."""
    boxes = [dict(zip(event.box_frames_K.tolist(), event.boxes_K4, strict=True)) for event in (truth, prediction)]
    hidden = {f for f in range(25) if truth.covers(f) and f not in boxes[0]}
    frames = (set(boxes[0]) | set(boxes[1])) - hidden
    common = [f for f in frames if f in boxes[0] and f in boxes[1]]
    summed = sum(box_iou(boxes[0][f][None], boxes[1][f][None])[0, 0] for f in common)
    return summed / len(frames) if boxes[0] and boxes[1] else 0


def test_tube_ious_against_a_loop_over_frames():
    rng = np.random.default_rng(0)
    truths, predictions = [random_tube(rng) for _ in range(12)], [random_tube(rng) for _ in range(15)]
    truths[5], predictions[7] = tube(3, 9, []), tube(3, 9, [])
    expected = [[tube_iou_loop(truth, prediction) for prediction in predictions] for truth in truths]
    np.testing.assert_allclose(tube_ious(truths, predictions), expected, rtol=1e-12)
    assert (np.array(expected) > 0).mean() > 0.2
    assert tube_iou(truths[3], predictions[4]) == pytest.approx(expected[3][4])


def test_tube_ious_of_nothing():
    assert tube_ious([], [tube(0, 1, [0])]).shape == (0, 1)
    assert tube_ious([tube(0, 1, [0])], []).shape == (1, 0)
    assert tube_ious([tube(0, 1, [0])], [tube(0, 1, [])]).tolist() == [[0]]
