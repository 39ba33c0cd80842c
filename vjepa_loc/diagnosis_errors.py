"""What became of each prediction and each truth at one threshold: found, missed, or which kind of false positive.

`vjepa_loc/diagnosis.py` defines the kinds. Shapes: P predictions, G truths, in the order of their files; K pairs of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vjepa_loc.metrics._event_matching import ranked
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._tube_overlap import Tubes, exact_on_paper, pairs_in_time, sums_on_common_frames
from vjepa_loc.metrics.stal import covered_frames, seen_viou
from vjepa_loc.overlap import paired_box_iou, paired_span_iou
from vjepa_loc.scoring_input import ScoringInput

KINDS = ("double detection", "wrong label", "bad box", "bad boundary", "several faults", "background")
"""In the order of the tests: a false positive is of the first kind that fits."""

DOUBLE, WRONG_LABEL, BAD_BOX, BAD_BOUNDARY, SEVERAL, BACKGROUND = range(len(KINDS))
FOUND, LEFT_OUT = -1, -2

BACKGROUND_IOU = 0.1


@dataclass(frozen=True, eq=False)
class Findings:
    """The outcome at one threshold of `metric`, `tal` or `stal`.

    `kind_P` is an index into KINDS, FOUND for a true positive, LEFT_OUT for one that the metric does not count.
    `truth_P` is the truth that a prediction found or, if false, stands nearest to in the sense of its kind, -1 for
    none; `overlap_P` and `time_iou_P` are its overlap (what the metric compares) and temporal IoU with that truth.
    `scored_G` are the truths that are found or missed, `found_G` those found. `nearest_G` is the prediction that
    overlaps a missed truth most, -1 for none; `nearest_overlap_G` and `nearest_time_iou_G` say how far.
    """

    metric: str
    threshold: float
    ranked_P: np.ndarray
    kind_P: np.ndarray
    truth_P: np.ndarray
    overlap_P: np.ndarray
    time_iou_P: np.ndarray
    scored_G: np.ndarray
    found_G: np.ndarray
    nearest_G: np.ndarray
    nearest_overlap_G: np.ndarray
    nearest_time_iou_G: np.ndarray

    @property
    def missed_G(self) -> np.ndarray:
        return self.scored_G & ~self.found_G


def find_errors(inputs: ScoringInput, metric: str, threshold: float) -> Findings:
    """Matches as `metric` does and names the kind of every false positive.

    Time and memory grow with the predictions and with the pairs that are near enough to matter.
    """
    truths, predictions = inputs.truths, inputs.predictions
    num_truths, num_predictions = len(truths), len(predictions)
    scored_G = truths.num_boxes_N > 0 if metric == "stal" else np.ones(num_truths, dtype=bool)
    has_place_P = predictions.num_boxes_N > 0 if metric == "stal" else np.ones(num_predictions, dtype=bool)
    ranked_P = ranked(predictions.score_N)
    rank_P = np.empty(num_predictions, dtype=np.int64)
    rank_P[ranked_P] = np.arange(num_predictions)
    near = _near_pairs(inputs, metric, min(BACKGROUND_IOU, threshold), scored_G, has_place_P)

    could = np.flatnonzero(near.own_K & scored_G[near.truth_K] & (near.overlap_K >= threshold))
    match = match_pairs(
        rank_P[near.prediction_K[could]], near.truth_K[could], near.overlap_K[could], np.array([threshold]), last_of_equals=True
    )
    found_at = could[match[:, 0]]
    found_G = np.zeros(num_truths, dtype=bool)
    found_G[near.truth_K[found_at]] = True
    kind_P = np.full(num_predictions, BACKGROUND, dtype=np.int8)
    excused_K = near.own_K & ~scored_G[near.truth_K] & (near.time_K >= threshold) & has_place_P[near.prediction_K]
    kind_P[near.prediction_K[excused_K]] = LEFT_OUT
    kind_P[near.prediction_K[found_at]] = FOUND

    of_false = np.flatnonzero(kind_P[near.prediction_K] == BACKGROUND)
    kind_K = _kinds(inputs, near.take(of_false), metric, threshold, scored_G, found_G, has_place_P)
    np.minimum.at(kind_P, near.prediction_K[of_false], kind_K)
    fitting = of_false[(kind_K == kind_P[near.prediction_K[of_false]]) & (kind_K != BACKGROUND)]
    known = np.concatenate([found_at, _nearest(near, fitting, near.prediction_K, found_G[near.truth_K], near.truth_K)])

    to_missed = (scored_G & ~found_G)[near.truth_K] & (kind_P[near.prediction_K] != LEFT_OUT)
    rank_K = rank_P[near.prediction_K]
    nearest = _nearest(near, np.flatnonzero(to_missed), near.truth_K, np.zeros(len(rank_K)), rank_K)
    return Findings(
        metric,
        threshold,
        ranked_P,
        kind_P,
        _placed(near.prediction_K[known], near.truth_K[known], num_predictions, -1),
        _placed(near.prediction_K[known], near.overlap_K[known], num_predictions, 0.0),
        _placed(near.prediction_K[known], near.time_K[known], num_predictions, 0.0),
        scored_G,
        found_G,
        _placed(near.truth_K[nearest], near.prediction_K[nearest], num_truths, -1),
        _placed(near.truth_K[nearest], near.overlap_K[nearest], num_truths, 0.0),
        _placed(near.truth_K[nearest], near.time_K[nearest], num_truths, 0.0),
    )


@dataclass(frozen=True, eq=False)
class _NearPairs:
    """K pairs of a prediction and a truth of its video: their overlap, temporal IoU, and whether their label is the same."""

    prediction_K: np.ndarray
    truth_K: np.ndarray
    overlap_K: np.ndarray
    time_K: np.ndarray
    own_K: np.ndarray

    def take(self, chosen: np.ndarray) -> _NearPairs:
        return _NearPairs(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def _near_pairs(
    inputs: ScoringInput, metric: str, least: float, scored_G: np.ndarray, has_place_P: np.ndarray
) -> _NearPairs:
    """All pairs with an overlap of `least`, or of one label with a temporal IoU of `least`: no other has a kind."""
    truths, predictions = inputs.truths, inputs.predictions
    spans_P2, spans_G2, covered_G2 = predictions.spans_N2, truths.spans_N2, covered_frames(truths)
    tubes, truth_tubes = (Tubes.of(table, len(inputs.labels)) for table in (predictions, truths))
    nothing = np.empty(0, dtype=np.int64)
    parts = [_NearPairs(nothing, nothing, np.empty(0), np.empty(0), np.empty(0, dtype=bool))]
    # Whatever shares a box's frame shares time, since boxes lie on frames that their event covers.
    for prediction_K, truth_K in pairs_in_time(predictions.video_N, *spans_P2.T, truths.video_N, *spans_G2.T):
        time_K = paired_span_iou(spans_P2[prediction_K], spans_G2[truth_K])
        overlap_K = time_K
        if metric == "stal":
            # A truth without boxes has only its time to be compared, and only with predictions that say a place at all.
            overlap_K = np.where(has_place_P[prediction_K], time_K, 0.0)
            at = scored_G[truth_K]
            overlap_K[at] = seen_viou(covered_G2, tubes, truth_tubes, prediction_K[at], truth_K[at])
        own_K = predictions.label_N[prediction_K] == truths.label_N[truth_K]
        near_K = (overlap_K >= least) | (own_K & (time_K >= least))
        parts.append(_NearPairs(prediction_K, truth_K, overlap_K, time_K, own_K).take(near_K))
    return _NearPairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NearPairs.__dataclass_fields__))


def _kinds(
    inputs: ScoringInput,
    near: _NearPairs,
    metric: str,
    threshold: float,
    scored_G: np.ndarray,
    found_G: np.ndarray,
    has_place_P: np.ndarray,
) -> np.ndarray:
    """The first kind (K,) that each pair of a false positive and a truth makes fit."""
    background = min(BACKGROUND_IOU, threshold)
    own_K, time_K, overlap_K, scored_K = near.own_K, near.time_K, near.overlap_K, scored_G[near.truth_K]
    # With the place all wrong, a prediction is held to have meant a truth only if nothing else found that.
    meant_K = (overlap_K >= background) | ~found_G[near.truth_K]
    hit_K = overlap_K >= threshold
    in_time_K = own_K & (time_K >= threshold)
    early_K = own_K & (time_K >= background) & ~in_time_K
    in_place_K = has_place_P[near.prediction_K]
    if metric == "stal":
        asked = np.flatnonzero(early_K & scored_K)
        in_place_K[asked] = _common_frames_iou(inputs, near.prediction_K[asked], near.truth_K[asked]) >= threshold
    kinds = {
        DOUBLE: own_K & hit_K & scored_K,
        WRONG_LABEL: ~own_K & hit_K,
        BAD_BOX: in_time_K & meant_K,
        BAD_BOUNDARY: early_K & in_place_K,
        SEVERAL: ((in_time_K | early_K) & meant_K) | (overlap_K >= background),
    }
    return np.select(list(kinds.values()), list(kinds), BACKGROUND).astype(np.int8)


def _common_frames_iou(inputs: ScoringInput, prediction_K: np.ndarray, truth_K: np.ndarray) -> np.ndarray:
    """Mean box IoU (K,) of pairs on the frames where both have a box, 0 where there is none."""
    tubes, truth_tubes = (Tubes.of(table, len(inputs.labels)) for table in (inputs.predictions, inputs.truths))
    sum_K, num_K = sums_on_common_frames(tubes, truth_tubes, prediction_K, truth_K, paired_box_iou)
    return exact_on_paper(sum_K / np.maximum(num_K, 1))


def _nearest(
    near: _NearPairs, eligible: np.ndarray, of_K: np.ndarray, last_K: np.ndarray, place_K: np.ndarray
) -> np.ndarray:
    """Of the eligible pairs, the one of each `of_K` with the largest overlap, then temporal IoU, then those that are not
    to come last, then the first place."""
    keys = place_K[eligible], last_K[eligible], -near.time_K[eligible], -near.overlap_K[eligible], of_K[eligible]
    order = eligible[np.lexsort(keys)]
    return order[np.unique(of_K[order], return_index=True)[1]]


def _placed(at: np.ndarray, values: np.ndarray, num: int, elsewhere: float) -> np.ndarray:
    """An array of `num` with `values` in their places."""
    array = np.full(num, elsewhere, dtype=values.dtype)
    array[at] = values
    return array
