"""Average precision over events: ranking, matching to free truths, and the precision-recall curve.

Shapes: P predictions, G truths, R thresholds.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from vjepa_loc.dataset import Dataset
from vjepa_loc.errors import DatasetError
from vjepa_loc.events import Event
from vjepa_loc.metrics._result import MetricResult, Thresholds, threshold_names

Similarities = Callable[[Sequence[Event], Sequence[Event]], tuple[np.ndarray, np.ndarray]]
"""Of one video's truths (G) and predictions (P) of one label: the similarity (P, G) that a match must reach, and per
prediction (P,) the similarity to what would have it ignored instead of counted as false."""


def mean_average_precision(
    metric: str,
    truth: Dataset,
    predictions: Sequence[Event],
    video_ids: Sequence[str],
    thresholds: Thresholds,
    similarities: Similarities,
    counts_as_truth: Callable[[Event], bool],
) -> MetricResult:
    """The figures `<metric>/map@<threshold>` over the given videos.

    A class is scored when a truth of its label `counts_as_truth` in these videos; the figure is the mean over those
    classes, 0 where there is none. Raises DatasetError for a prediction without a score, and UnknownNameError for a
    video that is not in the dataset.
    """
    entries = threshold_names(thresholds)
    levels_R = np.unique([value for values in entries.values() for value in values])
    truths, candidates, notes = _by_label_and_video(metric, truth, predictions, video_ids)

    per_class: dict[str, dict[str, float]] = {}
    for label in truth.labels:
        num_truths = sum(counts_as_truth(event) for events in truths[label].values() for event in events)
        if num_truths == 0:
            notes += _unscored_note(metric, label, truths[label], candidates[label])
            continue
        ap_R = _label_average_precision(truths[label], candidates[label], num_truths, levels_R, similarities)
        per_class[label] = {
            f"{metric}/map@{name}": float(ap_R[np.searchsorted(levels_R, values)].mean())
            for name, values in entries.items()
        }
    if not per_class:
        notes.append(f"{metric}: no truth to score against in {len(set(video_ids))} videos, every figure is 0")
    values = {
        key: float(np.mean([figures[key] for figures in per_class.values()])) if per_class else 0.0
        for key in (f"{metric}/map@{name}" for name in entries)
    }
    return MetricResult(values, per_class, notes)


def match_free_truths(similarity_PG: np.ndarray, thresholds_R: np.ndarray) -> np.ndarray:
    """Which predictions find a truth, (P, R), at each threshold on its own.

    In the order of the rows, a prediction takes the most similar truth that is still free and reaches the threshold
    (ties: the first column); the truth is then taken.
    """
    num_predictions, num_truths = similarity_PG.shape
    matched_PR = np.zeros((num_predictions, len(thresholds_R)), dtype=bool)
    if num_truths == 0:
        return matched_PR
    free_GR = np.ones((num_truths, len(thresholds_R)), dtype=bool)
    order_PG = np.argsort(-similarity_PG, axis=1, kind="stable")
    # Most predictions reach no truth at any threshold: only the others need the loop.
    for row in np.flatnonzero(similarity_PG.max(axis=1) >= thresholds_R.min()):
        for column in order_PG[row]:
            takes_R = (similarity_PG[row, column] >= thresholds_R) & free_GR[column] & ~matched_PR[row]
            matched_PR[row] |= takes_R
            free_GR[column] &= ~takes_R
            if similarity_PG[row, column] < thresholds_R.min() or matched_PR[row].all():
                break
    return matched_PR


def interpolated_average_precision(true_P: np.ndarray, num_truths: int) -> float:
    """Area under the precision envelope of ranked predictions (true or false), over recall 0..1.

    The precision at a recall is the best one at that or any higher recall; after interpolated_prec_rec in
    activitynet/ActivityNet, Evaluation/utils.py.
    """
    if len(true_P) == 0:
        return 0.0
    num_true_P = np.cumsum(true_P)
    precision_P = num_true_P / np.arange(1, len(true_P) + 1)
    envelope_P = np.maximum.accumulate(precision_P[::-1])[::-1]
    return float(envelope_P[np.asarray(true_P, dtype=bool)].sum() / num_truths)


def _label_average_precision(truths_by_video, candidates_by_video, num_truths, thresholds_R, similarities):
    """AP (R,) of one label. Truths are locked per video, so that videos are matched on their own, then ranked."""
    scores, matched, ignored = [], [], []
    for video_id, events in candidates_by_video.items():
        scores_P = np.array([event.score for _, event in events])
        ranked = np.argsort(-scores_P, kind="stable")
        similarity_PG, excuse_P = similarities(
            truths_by_video.get(video_id, ()), [events[index][1] for index in ranked]
        )
        matched_PR = match_free_truths(similarity_PG, thresholds_R)
        matched.append(matched_PR)
        ignored.append(~matched_PR & (excuse_P[:, None] >= thresholds_R))
        positions_P = np.array([position for position, _ in events])
        scores.append(np.stack([-scores_P[ranked], positions_P[ranked]]))
    if not scores:
        return np.zeros(len(thresholds_R))
    negative_score_P, position_P = np.concatenate(scores, axis=1)
    ranked = np.lexsort((position_P, negative_score_P))
    matched_PR, ignored_PR = np.concatenate(matched)[ranked], np.concatenate(ignored)[ranked]
    return np.array(
        [
            interpolated_average_precision(matched_PR[~ignored_PR[:, level], level], num_truths)
            for level in range(len(thresholds_R))
        ]
    )


def _by_label_and_video(metric, truth, predictions, video_ids):
    """Truths and (position in the file, prediction) pairs by label, then by video, and what was left out."""
    wanted = dict.fromkeys(video_ids)
    truths = defaultdict(lambda: defaultdict(list))
    for video_id in wanted:
        for event in truth.events_of(video_id):
            truths[event.label][video_id].append(event)
    candidates = defaultdict(lambda: defaultdict(list))
    num_elsewhere = 0
    for position, event in enumerate(predictions):
        if event.score is None:
            raise DatasetError(
                f"predictions[{position}] ({event.label!r} in video {event.video_id!r}): expected a score, got none; "
                f"{metric} ranks predictions by it"
            )
        if event.video_id in wanted:
            candidates[event.label][event.video_id].append((position, event))
        else:
            num_elsewhere += 1
    notes = [f"{metric}: {num_elsewhere} predictions in other videos are not counted"] if num_elsewhere else []
    return truths, candidates, notes


def _unscored_note(metric, label, truths_by_video, candidates_by_video):
    num_truths = sum(len(events) for events in truths_by_video.values())
    num_candidates = sum(len(events) for events in candidates_by_video.values())
    if not num_truths and not num_candidates:
        return []
    what = f"{num_truths} truth events without boxes" if num_truths else "no truth"
    return [
        f"{metric}: label {label!r} has {what} here and is not scored; {num_candidates} predictions are not counted"
    ]
