"""Intersection over union of spans, boxes and tubes.

Everything here is 0 where it is undefined (two empty shapes) and never NaN.
Shapes: N and M are the two sets that are compared with each other, B the boxes of all predictions.
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


def tube_iou(truth: Event, prediction: Event) -> float:
    """Sum of box IoU over the common frames, divided by the size of the union of both tubes' frames.

    A tube's frames are those with a box. Frames inside the truth's interval on which the truth has no box (the
    thing is hidden there) are left out on both sides. 0 when either has no box. After VidSTG's vIoU
    (antoyang/TubeDETR, datasets/vidstg_eval.py), with hidden frames added.
    """
    return float(tube_ious([truth], [prediction])[0, 0])


def tube_ious(truths: Sequence[Event], predictions: Sequence[Event]) -> np.ndarray:
    """`tube_iou` of every truth with every prediction, (N, M); all of them events of one video."""
    iou_NM = np.zeros((len(truths), len(predictions)))
    if not truths or not predictions:
        return iou_NM
    num_boxes_M = np.array([prediction.num_boxes for prediction in predictions])
    frames_B = np.concatenate([prediction.box_frames_K for prediction in predictions])
    # Boxes of all predictions in order of time: a truth then meets only the stretch that it covers.
    in_time_B = np.argsort(frames_B, kind="stable")
    frames_B = frames_B[in_time_B]
    boxes_B4 = np.concatenate([prediction.boxes_K4 for prediction in predictions])[in_time_B]
    owner_B = np.repeat(np.arange(len(predictions)), num_boxes_M)[in_time_B]
    for row, truth in enumerate(truths):
        if truth.num_boxes == 0:
            continue
        inside = slice(*np.searchsorted(frames_B, truth.covered_frames()))
        owner, frames = owner_B[inside], frames_B[inside]
        at = np.minimum(np.searchsorted(truth.box_frames_K, frames), truth.num_boxes - 1)
        iou = np.where(
            truth.box_frames_K[at] == frames, paired_box_iou(truth.boxes_K4[at], boxes_B4[inside]), 0.0
        )
        summed_M = np.bincount(owner, weights=iou, minlength=len(predictions))
        # A truth's boxes lie on frames it covers, so the union is its boxes and what the prediction has outside.
        outside_M = num_boxes_M - np.bincount(owner, minlength=len(predictions))
        iou_NM[row] = summed_M / (truth.num_boxes + outside_M)
    return iou_NM


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
