import numpy as np
import pytest

from vjepa_loc.overlap import box_iou, paired_box_iou, span_iou

SQUARE = [0.0, 0.0, 10.0, 10.0]
HALF = [0.0, 0.0, 10.0, 5.0]  # IoU 0.5 with SQUARE


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
