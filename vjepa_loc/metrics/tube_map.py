"""Mean average precision of tubes, in four conventions.

A tube is the boxes of an event; its extent runs from its first to its last frame with a box, and the event's interval
counts nothing. Predictions meet the truths of their video and label, by descending score.

| convention | tube IoU | a prediction is true when | AP | labels without truth |
|---|---|---|---|---|
| `act` | mean box IoU on the common frames x temporal IoU of the extents; inclusive pixels and frames (+1) | its best remaining truth reaches the threshold; before that, greedy suppression above 0.3 per video and label | trapezoids from precision 1 at recall 0 | count 0 |
| `multisports` | the same without any +1: an extent of one frame has no length | its best truth reaches the threshold and nobody found that one before | precision envelope | left out |
| `volume` | common volume / volume of the union, continuous edges | its best remaining truth reaches the threshold | precision envelope | left out |
| `viou` | sum of box IoU on the common frames / number of frames on which either has a box | its best remaining truth reaches the threshold | precision envelope | left out |

Means over thresholds of `act` and `multisports` are over start + step * i, unrounded, as the official tools compute them.

`act` follows MCG-NJU/MOC-Detector, src/ACT.py (videoAP). Among equal scores the official order is that of an unstable
sort; here it is what a stable one gives there: in suppression the last of the file first, in the ranking video by video
in the order of the dataset, in a video as in suppression. The official script stops at a label without truth that has
predictions; here its AP is 0, as it is there without predictions.
`multisports` follows MCG-NJU/MultiSports, evaluate_multisports.py (videoAP). Two tubes of one frame, on the same frame,
give 0/0 there and no match, as here. Six classes of MultiSports are not evaluated, as there. Ties keep the file's order.
`volume` is the spatio-temporal IoU of Ego4D VQ2D (EGO4D/episodic-memory, VQ2D/vq2d/metrics/utils.py), `viou` that of
VidSTG (antoyang/TubeDETR, datasets/vidstg_eval.py); both are ranked and matched as in `tal`. `stal` is `viou` with
rules for hidden frames and for truth without boxes.

Frames without a box inside an extent stop the official scripts of `act` and `multisports`; here the mean is over the
frames on which both have a box, and is 0 without any. Truth without boxes is no truth here. A prediction without boxes
is no tube in `act` and `multisports`, whose files cannot hold one, and does not count; in `volume` and `viou` it is false.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from vjepa_loc.metrics._average_precision import envelope_curve, levels_of, mean_average_precision, trapezoid_curve
from vjepa_loc.metrics._event_matching import Match, answers_of_labels, found_by_order, match_best_only, ranked
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._multisports import unscored_labels
from vjepa_loc.metrics._result import MetricResult, Thresholds, added_up, metric_key, not_applicable, steps, threshold_names
from vjepa_loc.metrics._tube_overlap import Tubes, TubeSimilarity, exact_on_paper, similar_pairs, sums_on_common_frames
from vjepa_loc.metrics._tube_suppression import kept_tubes
from vjepa_loc.overlap import paired_box_iou, paired_common_area
from vjepa_loc.scoring_input import EventTable, ScoringInput

CONVENTIONS = {
    "act": "mean box IoU x temporal IoU of the extents, both inclusive (+1); suppression above 0.3 first; best free truth; as MOC-Detector",
    "multisports": "mean box IoU x temporal IoU of the extents, nothing inclusive; best truth only, once; as MultiSports",
    "volume": "common volume / volume of the union; best free truth, as tal",
    "viou": "sum of box IoU on common frames / frames with a box in either; best free truth, as tal",
}
DEFAULT_THRESHOLDS: Thresholds = (0.2, 0.5, 0.75, steps(0.05, 0.05, 0.45), steps(0.1, 0.1, 0.9), steps(0.5, 0.05, 0.95))

ACT_SUPPRESSION = 0.3

_TOOLS_OF_TUBES_ALONE = ("act", "multisports")
"""Their files cannot hold a prediction without boxes."""


def compute(
    inputs: ScoringInput, convention: str = "viou", thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`tube_map[...]/map@...` of the tubes. Does not apply where no truth has a box. Raises ConfigError for wrong thresholds."""
    key = metric_key("tube_map", convention)
    entries = threshold_names(thresholds)
    if convention in ("act", "multisports"):
        entries = {name: added_up(values) for name, values in entries.items()}
    levels_R = levels_of(entries)
    truths, predictions = inputs.truths, inputs.predictions
    boxed_N = truths.num_boxes_N > 0
    if len(truths) and not boxed_N.any():
        return not_applicable(f"none of the {len(truths)} truth events has a box")
    similarity, num_labels = _SIMILARITIES[convention], len(inputs.labels)
    truth_tubes = Tubes.of(truths, num_labels, _pixels(truths, convention))
    tubes = Tubes.of(predictions, num_labels, _pixels(predictions, convention))
    order_N = ranked(predictions.score_N)
    if convention == "act":
        order_N = _act_order(inputs)
        kept_N = kept_tubes(
            tubes, order_N, ACT_SUPPRESSION, lambda a_K, b_K: similarity(tubes, tubes, a_K, b_K), _ActBound(tubes)
        )
    found, truth, similarity_K = similar_pairs(tubes, truth_tubes, similarity, float(levels_R[0]))
    if convention == "act":
        left = kept_N[found]
        found, truth, similarity_K = found[left], truth[left], similarity_K[left]
    found_NR = found_by_order(order_N, found, truth, similarity_K, levels_R, _MATCHES[convention])
    if convention == "act":
        order_N = order_N[kept_N[order_N]]
    bare_N = predictions.num_boxes_N == 0
    if convention in _TOOLS_OF_TUBES_ALONE:
        order_N = order_N[~bare_N[order_N]]
    labels, notes = _scored_labels(key, inputs, convention, boxed_N)
    if convention in _TOOLS_OF_TUBES_ALONE and bare_N.any():
        notes.append(f"{key}: {int(bare_N.sum())} predictions have no box and do not count")
    return mean_average_precision(
        key,
        inputs,
        answers_of_labels(inputs, labels, order_N, found_NR, boxed_N),
        entries,
        levels_R,
        curve=trapezoid_curve if convention == "act" else envelope_curve,
        classes_without_truth="zero" if convention == "act" else "skip",
        notes=notes,
    )


def inclusive_box_iou(a_C4: np.ndarray, b_C4: np.ndarray) -> np.ndarray:
    """IoU (C,) of boxes in the same row whose x2 and y2 are the last pixels, so that sizes are their difference + 1."""
    width = np.minimum(a_C4[:, 2] + 1, b_C4[:, 2] + 1) - np.maximum(a_C4[:, 0], b_C4[:, 0])
    height = np.minimum(a_C4[:, 3] + 1, b_C4[:, 3] + 1) - np.maximum(a_C4[:, 1], b_C4[:, 1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    return common / (_inclusive_area(a_C4) + _inclusive_area(b_C4) - common)


def _inclusive_area(box_C4: np.ndarray) -> np.ndarray:
    return (box_C4[:, 2] - box_C4[:, 0] + 1) * (box_C4[:, 3] - box_C4[:, 1] + 1)


def _pixels(table: EventTable, convention: str) -> np.ndarray:
    return table.box_B4 - np.array([0.0, 0.0, 1.0, 1.0]) if convention == "act" else table.box_B4


def _act(a: Tubes, b: Tubes, a_K: np.ndarray, b_K: np.ndarray) -> np.ndarray:
    sum_K, num_K = sums_on_common_frames(a, b, a_K, b_K, inclusive_box_iou)
    return _ratio(sum_K, num_K) * _extent_iou(a, b, a_K, b_K, 1)


def _multisports(a: Tubes, b: Tubes, a_K: np.ndarray, b_K: np.ndarray) -> np.ndarray:
    sum_K, num_K = sums_on_common_frames(a, b, a_K, b_K, paired_box_iou)
    return _ratio(sum_K, num_K) * _extent_iou(a, b, a_K, b_K, 0)


def _volume(a: Tubes, b: Tubes, a_K: np.ndarray, b_K: np.ndarray) -> np.ndarray:
    common_K, _ = sums_on_common_frames(a, b, a_K, b_K, paired_common_area)
    return _ratio(common_K, a.volume_N[a_K] + b.volume_N[b_K] - common_K)


def _viou(a: Tubes, b: Tubes, a_K: np.ndarray, b_K: np.ndarray) -> np.ndarray:
    sum_K, num_K = sums_on_common_frames(a, b, a_K, b_K, paired_box_iou)
    return exact_on_paper(_ratio(sum_K, a.num_boxes_N[a_K] + b.num_boxes_N[b_K] - num_K))


# Of equal truths, ACT and MultiSports take the first, and the others the last, as `tal`.
_MATCHES: dict[str, Match] = {
    "act": match_pairs,
    "multisports": match_best_only,
    "volume": partial(match_pairs, last_of_equals=True),
    "viou": partial(match_pairs, last_of_equals=True),
}

_SIMILARITIES: dict[str, TubeSimilarity] = {"act": _act, "multisports": _multisports, "volume": _volume, "viou": _viou}


def _extent_iou(a: Tubes, b: Tubes, a_K: np.ndarray, b_K: np.ndarray, one: int) -> np.ndarray:
    """Temporal IoU (K,) of extents that share a frame, where an extent is `one` longer than last - first."""
    common = np.minimum(a.last_N[a_K], b.last_N[b_K]) - np.maximum(a.first_N[a_K], b.first_N[b_K]) + one
    return _ratio(common, np.maximum(a.last_N[a_K], b.last_N[b_K]) - np.minimum(a.first_N[a_K], b.first_N[b_K]) + one)


def _act_order(inputs: ScoringInput) -> np.ndarray:
    """Predictions by descending score; ties video by video in the dataset's order, in a video the last of the file first."""
    predictions = inputs.predictions
    position = {video_id: position for position, video_id in enumerate(inputs.dataset.videos)}
    position_V = np.array([position[video_id] for video_id in inputs.video_ids], dtype=np.int64)
    return np.lexsort((-np.arange(len(predictions)), position_V[predictions.video_N], -predictions.score_N))


class _ActBound:
    """More than the `act` overlap of pairs of tubes can be, from their extents and from where their boxes ever are."""

    def __init__(self, tubes: Tubes):
        boxed = tubes.with_boxes
        starts = tubes.first_box_N1[:-1][boxed]
        self._tubes = tubes
        self._hull_N4 = np.zeros((len(tubes.group_N), 4))
        self._least_area_N = np.ones(len(tubes.group_N))
        if len(boxed):
            self._hull_N4[boxed, :2] = np.minimum.reduceat(tubes.box_B4[:, :2], starts)
            self._hull_N4[boxed, 2:] = np.maximum.reduceat(tubes.box_B4[:, 2:], starts)
            self._least_area_N[boxed] = np.minimum.reduceat(_inclusive_area(tubes.box_B4), starts)

    def __call__(self, a_K: np.ndarray, b_K: np.ndarray) -> np.ndarray:
        # What two boxes share lies in both hulls, and their union is no smaller than the larger of them.
        hull_C4 = self._hull_N4 + np.array([0.0, 0.0, 1.0, 1.0])
        common = paired_common_area(hull_C4[a_K], hull_C4[b_K])
        largest = np.minimum(1.0, common / np.maximum(self._least_area_N[a_K], self._least_area_N[b_K]))
        return largest * _extent_iou(self._tubes, self._tubes, a_K, b_K, 1)


def _scored_labels(key: str, inputs: ScoringInput, convention: str, boxed_N: np.ndarray) -> tuple[list[int], list[str]]:
    """The labels that take part, and what is said about the others and about truth that is left out."""
    num_labels = len(inputs.labels)
    num_tubes_L = np.bincount(inputs.truths.label_N[boxed_N], minlength=num_labels)
    num_bare_L = np.bincount(inputs.truths.label_N[~boxed_N], minlength=num_labels)
    num_predictions_L = np.bincount(inputs.predictions.label_N, minlength=num_labels)
    labels, notes = [], []
    for label, name in enumerate(inputs.labels):
        if num_bare_L[label]:
            notes.append(f"{key}: label {name!r} has {num_bare_L[label]} truth events without boxes; they are left out")
        if convention == "multisports" and name in unscored_labels([name]):
            if num_tubes_L[label] or num_predictions_L[label]:
                notes.append(f"{key}: label {name!r} is not evaluated in MultiSports, nor here")
        elif num_tubes_L[label]:
            labels.append(label)
        elif convention == "act":
            labels.append(label)
            notes.append(f"{key}: label {name!r} has no truth tube here; its AP is 0 and lowers the mean over all labels")
        elif num_predictions_L[label]:
            notes.append(
                f"{key}: label {name!r} has no truth tube here and is not scored; "
                f"{num_predictions_L[label]} predictions are not counted"
            )
    return labels, notes


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
