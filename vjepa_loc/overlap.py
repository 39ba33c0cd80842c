"""Intersection over union of spans and of boxes.

Everything here is 0 where it is undefined (two empty shapes) and never NaN.
Shapes: N and M are the two sets that are compared with each other.
"""

from collections.abc import Sequence

import numpy as np

from vjepa_loc.events import Event


def span_iou(a_N2: np.ndarray, b_M2: np.ndarray) -> np.ndarray:
    """Temporal IoU (N, M) of half-open intervals [start, end), in any common unit."""
    return _span_iou(_rows(a_N2, 2)[:, None], _rows(b_M2, 2)[None, :])


def paired_span_iou(a_N2: np.ndarray, b_N2: np.ndarray) -> np.ndarray:
    """Temporal IoU (N,) of each half-open interval with the one in the same row of the other set."""
    return _span_iou(_rows(a_N2, 2), _rows(b_N2, 2))


def event_spans(events: Sequence[Event]) -> np.ndarray:
    """The intervals of events as `span_iou` takes them, (N, 2) in frames."""
    return _rows([(event.start_frame, event.end_frame) for event in events], 2)


def box_iou(a_N4: np.ndarray, b_M4: np.ndarray) -> np.ndarray:
    """IoU (N, M) of xyxy boxes with continuous edges; a box without area overlaps nothing."""
    a_N4, b_M4 = _rows(a_N4, 4), _rows(b_M4, 4)
    return _box_iou(a_N4[:, None], b_M4[None, :])


def paired_box_iou(a_N4: np.ndarray, b_N4: np.ndarray) -> np.ndarray:
    """IoU (N,) of each xyxy box with the box in the same row of the other set."""
    return _box_iou(_rows(a_N4, 4), _rows(b_N4, 4))


def paired_common_area(a_N4: np.ndarray, b_N4: np.ndarray) -> np.ndarray:
    """The area (N,) that each xyxy box shares with the box in the same row of the other set."""
    size_N2 = np.minimum(a_N4[:, 2:], b_N4[:, 2:]) - np.maximum(a_N4[:, :2], b_N4[:, :2])
    return np.maximum(size_N2, 0).prod(axis=1)


def _span_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    overlap = np.minimum(a[..., 1], b[..., 1]) - np.maximum(a[..., 0], b[..., 0])
    lengths = np.maximum(a[..., 1] - a[..., 0], 0) + np.maximum(b[..., 1] - b[..., 0], 0)
    return _ratio(np.maximum(overlap, 0), lengths)


def _box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    intersection = np.where((size > 0).all(axis=-1), size.prod(axis=-1), 0.0)
    return _ratio(intersection, _area(a) + _area(b))


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(axis=-1)


def _ratio(intersection: np.ndarray, total: np.ndarray) -> np.ndarray:
    union = total - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _rows(values: np.ndarray, width: int) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, width)
    if array.ndim != 2 or array.shape[1] != width:
        raise ValueError(f"overlap: expected shape (N, {width}), got {array.shape}")
    return array
