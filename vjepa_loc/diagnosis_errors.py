"""What became of each prediction and each truth at one threshold: found, missed, or which kind of false positive.

`vjepa_loc/diagnosis.py` defines the kinds. Shapes: P predictions, G truths, in the order of their files; in the
functions below those of one video, its predictions by descending score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vjepa_loc.metrics._event_matching import ranked
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._tube_overlap import exact_on_paper
from vjepa_loc.overlap import paired_box_iou, span_iou, tube_ious
from vjepa_loc.scoring_input import EventTable, ScoringInput

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
    """Matches as `metric` does and names the kind of every false positive. n log n in the predictions of a video."""
    truths, predictions = inputs.truths, inputs.predictions
    num_truths, num_predictions = len(truths), len(predictions)
    found = Findings(
        metric,
        threshold,
        ranked(predictions.score_N),
        np.full(num_predictions, BACKGROUND, dtype=np.int8),
        np.full(num_predictions, -1, dtype=np.int64),
        np.zeros(num_predictions),
        np.zeros(num_predictions),
        truths.num_boxes_N > 0 if metric == "stal" else np.ones(num_truths, dtype=bool),
        np.zeros(num_truths, dtype=bool),
        np.full(num_truths, -1, dtype=np.int64),
        np.zeros(num_truths),
        np.zeros(num_truths),
    )
    spans_P2, spans_G2 = predictions.spans_N2, truths.spans_N2
    for rows, columns in _of_each_video(inputs, found.ranked_P):
        _find_in_video(inputs, found, rows, columns, span_iou(spans_P2[rows], spans_G2[columns]))
    return found


def _of_each_video(inputs: ScoringInput, ranked_P: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predictions by rank and truths of each video that has both."""
    videos = np.arange(inputs.num_videos + 1)
    rows = ranked_P[np.argsort(inputs.predictions.video_N[ranked_P], kind="stable")]
    columns = np.argsort(inputs.truths.video_N, kind="stable")
    row_ends = np.searchsorted(inputs.predictions.video_N[rows], videos)
    column_ends = np.searchsorted(inputs.truths.video_N[columns], videos)
    for video in np.flatnonzero((np.diff(row_ends) > 0) & (np.diff(column_ends) > 0)).tolist():
        yield rows[row_ends[video] : row_ends[video + 1]], columns[column_ends[video] : column_ends[video + 1]]


def _find_in_video(
    inputs: ScoringInput, found: Findings, rows: np.ndarray, columns: np.ndarray, time_PG: np.ndarray
) -> None:
    truths, predictions, threshold = inputs.truths, inputs.predictions, found.threshold
    background = min(BACKGROUND_IOU, threshold)
    scored_G = found.scored_G[columns]
    own_PG = predictions.label_N[rows][:, None] == truths.label_N[columns]
    overlap_PG = time_PG
    has_boxes_P = np.ones(len(rows), dtype=bool)
    if found.metric == "stal":
        has_boxes_P = predictions.num_boxes_N[rows] > 0
        # A truth without boxes has only its time to be compared, and only with predictions that say a place at all.
        overlap_PG = np.where(has_boxes_P[:, None], time_PG, 0.0)
        tube_iou_GP = tube_ious([truths.events[at] for at in columns[scored_G]], [predictions.events[at] for at in rows])
        overlap_PG[:, scored_G] = exact_on_paper(tube_iou_GP.T)

    match_P = match_truths(np.where(own_PG & scored_G, overlap_PG, -1.0), threshold)
    is_found_P = match_P >= 0
    found.found_G[columns[match_P[is_found_P]]] = True
    excused_P = ~is_found_P & has_boxes_P & (own_PG & ~scored_G & (time_PG >= threshold)).any(axis=1)
    false = np.flatnonzero(~is_found_P & ~excused_P)

    own, time, overlap = own_PG[false], time_PG[false], overlap_PG[false]
    # With the place all wrong, a prediction is held to have meant a truth only if nothing else found that.
    meant = (overlap >= background) | ~found.found_G[columns]
    in_time = own & (time >= threshold)
    near_in_time = own & (time >= background)
    in_place = np.repeat(has_boxes_P[false][:, None], len(columns), axis=1)
    if found.metric == "stal":
        for column in np.flatnonzero(scored_G & (near_in_time & ~in_time).any(axis=0)).tolist():
            asked = np.flatnonzero(near_in_time[:, column] & ~in_time[:, column])
            in_place[asked, column] = (
                common_frames_iou(truths, columns[column], predictions, rows[false[asked]]) >= threshold
            )
    hit = overlap >= threshold
    fits = (  # as KINDS
        own & hit & scored_G,
        ~own & hit,
        in_time & meant,
        near_in_time & ~in_time & in_place,
        (near_in_time & meant) | (overlap >= background),
        np.zeros_like(own),
    )
    kind = np.full(len(false), BACKGROUND, dtype=np.int8)
    eligible = np.zeros_like(own)
    for code in range(BACKGROUND):
        fitting = (kind == BACKGROUND) & fits[code].any(axis=1)
        kind[fitting] = code
        eligible[fitting] = fits[code][fitting]
    target = _nearest(eligible, overlap, time, ~found.found_G[columns])

    match_P[false] = target
    known = np.flatnonzero(match_P >= 0)
    found.kind_P[rows] = np.where(is_found_P, FOUND, LEFT_OUT)
    found.kind_P[rows[false]] = kind
    found.truth_P[rows[known]] = columns[match_P[known]]
    found.overlap_P[rows[known]] = overlap_PG[known, match_P[known]]
    found.time_iou_P[rows[known]] = time_PG[known, match_P[known]]

    missed = np.flatnonzero(scored_G & ~found.found_G[columns])
    if len(missed):
        near = ((own_PG & (time_PG >= background)) | (overlap_PG >= background)) & ~excused_P[:, None]
        nearest = _nearest(near[:, missed].T, overlap_PG[:, missed].T, time_PG[:, missed].T)
        missed, nearest = missed[nearest >= 0], nearest[nearest >= 0]
        found.nearest_G[columns[missed]] = rows[nearest]
        found.nearest_overlap_G[columns[missed]] = overlap_PG[nearest, missed]
        found.nearest_time_iou_G[columns[missed]] = time_PG[nearest, missed]


def match_truths(similarity_PG: np.ndarray, threshold: float) -> np.ndarray:
    """The truth (P,) that each prediction finds, -1 for none, as `tal` and `stal` match."""
    match_P = np.full(len(similarity_PG), -1, dtype=np.int64)
    rows, columns = np.nonzero(similarity_PG >= threshold)
    matched = match_pairs(rows, columns, similarity_PG[rows, columns], np.array([threshold]), last_of_equals=True)[:, 0]
    match_P[rows[matched]] = columns[matched]
    return match_P


def common_frames_iou(truths: EventTable, truth: int, predictions: EventTable, rows: np.ndarray) -> np.ndarray:
    """Mean box IoU (len(rows),) with one truth on the frames where both have a box, 0 where there is none."""
    event = truths.events[truth]
    chosen = predictions.where(rows)
    at = np.minimum(np.searchsorted(event.box_frames_K, chosen.frame_B), event.num_boxes - 1)
    common = event.box_frames_K[at] == chosen.frame_B
    owner = chosen.owner_B[common]
    iou = paired_box_iou(event.boxes_K4[at[common]], chosen.box_B4[common])
    num_common = np.bincount(owner, minlength=len(rows))
    return exact_on_paper(np.bincount(owner, weights=iou, minlength=len(rows)) / np.maximum(num_common, 1))


def _nearest(
    eligible: np.ndarray, overlap: np.ndarray, time: np.ndarray, preferred: np.ndarray | None = None
) -> np.ndarray:
    """Per row the eligible column of the largest overlap, then time, then a preferred one, then the first; -1 for none."""
    left = eligible
    for measure in (overlap, time):
        value = np.where(left, measure, -1.0)
        left = left & (value == value.max(axis=1, keepdims=True))
    if preferred is not None:
        better = left & preferred
        left = np.where(better.any(axis=1, keepdims=True), better, left)
    return np.where(eligible.any(axis=1), np.argmax(left, axis=1), -1)
