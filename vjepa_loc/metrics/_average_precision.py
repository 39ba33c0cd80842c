"""Average precision of ranked answers, under each convention's curve, for one set of videos or for many resamples.

Shapes: P answers of one label, G its truths, R threshold levels, V videos, W resamples of the videos, K answers that
found a truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._result import MetricResult

# Elements of the largest temporary array, so that memory stays small however many answers and resamples there are.
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class RankedAnswers:
    """The answers of one label over all videos, by descending score (ties in file order).

    `true_PR` says which found a truth at each level, `num_truths_V` how many truths each video has. `ignored_PR`,
    where given, are neither true nor false.
    """

    video_P: np.ndarray
    true_PR: np.ndarray
    num_truths_V: np.ndarray
    ignored_PR: np.ndarray | None = None


Curve = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""AP (W,) from `copies_WK` (how often each true answer stands in the ranking, its copies next to each other),
`num_true_WK` and `num_all_WK` (true answers and all answers up to and including the last copy) and
`num_truths_W` (above 0)."""


def envelope_curve(copies_WK, num_true_WK, num_all_WK, num_truths_W) -> np.ndarray:
    """Area under the precision envelope: the precision at a recall is the best one at that or any higher recall.

    As interpolated_prec_rec in activitynet/ActivityNet, Evaluation/utils.py; PASCAL VOC's all-point AP is the same.
    """
    return (_envelope(num_true_WK, num_all_WK) * copies_WK).sum(axis=1) / num_truths_W


def trapezoid_curve(copies_WK, num_true_WK, num_all_WK, num_truths_W) -> np.ndarray:
    """Area under straight lines between the points of the curve, from precision 1 at recall 0.

    As pr_to_ap in MCG-NJU/MOC-Detector, src/ACT_utils/ACT_utils.py. Only true answers move the recall, and the line to
    one starts at the precision right before it.
    """
    area_W = np.zeros(len(copies_WK))
    before_true_WK, before_all_WK = num_true_WK - copies_WK, num_all_WK - copies_WK
    for copy in range(int(copies_WK.max(initial=0))):
        left = np.where(before_all_WK + copy > 0, _ratio(before_true_WK + copy, before_all_WK + copy), 1.0)
        right = _ratio(before_true_WK + copy + 1, before_all_WK + copy + 1)
        area_W += np.where(copies_WK > copy, (left + right) / 2, 0.0).sum(axis=1)
    return area_W / num_truths_W


def coco_curve(copies_WK, num_true_WK, num_all_WK, num_truths_W) -> np.ndarray:
    """Mean of the precision envelope at the recalls 0, 0.01, ..., 1. As accumulate in cocodataset/cocoapi, cocoeval.py."""
    recalls = np.linspace(0.0, 1.0, 101)
    envelope_WK = _envelope(num_true_WK, num_all_WK)
    area_W = np.zeros(len(copies_WK))
    for row, (envelope_K, num_true_K) in enumerate(zip(envelope_WK, num_true_WK, strict=True)):
        at = np.searchsorted(num_true_K / num_truths_W[row], recalls, side="left")
        area_W[row] = np.append(envelope_K, 0.0)[at].mean()
    return area_W


def average_precisions(answers: RankedAnswers, weights_WV: np.ndarray, curve: Curve) -> np.ndarray:
    """AP (W, R) of one label where each video counts as often as its weight says; NaN where no truth is left.

    A video that counts twice gives its answers and truths twice, the copies of an answer one after the other.
    """
    weights_WV = np.asarray(weights_WV, dtype=np.int32)
    num_resamples, num_levels = len(weights_WV), answers.true_PR.shape[1]
    ap_WR = np.full((num_resamples, num_levels), np.nan)
    num_truths_W = weights_WV @ np.asarray(answers.num_truths_V, dtype=np.int64)
    step = max(1, _CHUNK // max(len(answers.video_P), 1))
    for start in range(0, num_resamples, step):
        chunk = slice(start, start + step)
        known_W = num_truths_W[chunk] > 0
        if known_W.any():
            ap_WR[chunk][known_W] = _chunk_precisions(
                answers, weights_WV[chunk][known_W], num_truths_W[chunk][known_W], curve
            )
    return ap_WR


def _chunk_precisions(answers, weights_WV, num_truths_W, curve) -> np.ndarray:
    copies_WP = weights_WV[:, answers.video_P]
    all_WP = np.cumsum(copies_WP, axis=1, dtype=np.int32) if answers.ignored_PR is None else None
    columns = []
    for level in range(answers.true_PR.shape[1]):
        found_K = np.flatnonzero(answers.true_PR[:, level])
        if answers.ignored_PR is None:
            num_all_WK = all_WP[:, found_K]
        else:
            counted = ~answers.ignored_PR[:, level]
            num_all_WK = np.cumsum(copies_WP * counted, axis=1, dtype=np.int32)[:, found_K]
        copies_WK = copies_WP[:, found_K]
        num_true_WK = np.cumsum(copies_WK, axis=1, dtype=np.int32)
        columns.append(curve(copies_WK, num_true_WK, num_all_WK, num_truths_W))
    return np.stack(columns, axis=1) if columns else np.empty((len(weights_WV), 0))


def mean_average_precision(
    key: str,
    inputs: ScoringInput,
    answers_of: Mapping[str, RankedAnswers],
    entries: Mapping[str, Sequence[float]],
    levels_R: np.ndarray,
    curve: Curve = envelope_curve,
    quantity: str = "map",
    headline: Sequence[str] | None = None,
    classes_without_truth: str = "skip",
    notes: Sequence[str] = (),
) -> MetricResult:
    """The figures `<key>/<quantity>@<entry>`: AP per label, its mean over labels, then over the entry's levels.

    `answers_of` holds the labels that take part; `entries` as `threshold_names` gives them, of values that stand in
    `levels_R` (ascending). A label without truth is skipped, or counts 0 with `classes_without_truth="zero"`. Every
    figure is 0 where no label is left, and a note says so. `headline` are names of entries; by default 0.50 and
    0.50:0.95 where they are asked for, else the first.
    """
    levels_R = np.asarray(levels_R, dtype=np.float64)
    keys = {name: f"{key}/{quantity}@{name}" for name in entries}
    names = [name for name in ("0.50", "0.50:0.95") if name in keys] or list(keys)[:1]
    names = names if headline is None else [name for name in headline if name in keys]
    columns = {name: np.searchsorted(levels_R, np.asarray(values)) for name, values in entries.items()}

    def figures(weights_WV: np.ndarray, chosen: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
        needed = np.unique(np.concatenate([columns[name] for name in chosen])) if chosen else np.empty(0, dtype=int)
        place = {name: np.searchsorted(needed, columns[name]) for name in chosen}
        classes = {label: _only_levels(answers, needed) for label, answers in answers_of.items()}
        ap = {label: average_precisions(answers, weights_WV, curve) for label, answers in classes.items()}
        if classes_without_truth == "zero":
            ap = {label: np.nan_to_num(ap_WR, nan=0.0) for label, ap_WR in ap.items()}
        per_class = {
            label: {keys[name]: ap_WR[:, place[name]].mean(axis=1) for name in chosen} for label, ap_WR in ap.items()
        }
        mean = {keys[name]: _mean_of_known([one[keys[name]] for one in per_class.values()], len(weights_WV)) for name in chosen}
        return mean, per_class

    everything = np.ones((1, inputs.num_videos), dtype=np.int32)
    mean, per_class = figures(everything, list(entries))
    notes = list(notes)
    if np.isnan(list(mean.values())).any():
        notes.append(f"{key}: no truth to score against in {inputs.num_videos} videos, every figure is 0")
    return MetricResult(
        {name: float(np.nan_to_num(value[0], nan=0.0)) for name, value in mean.items()},
        {
            label: {name: float(value[0]) for name, value in one.items()}
            for label, one in per_class.items()
            if not np.isnan([value[0] for value in one.values()]).any()
        },
        notes,
        tuple(keys[name] for name in names),
        lambda weights_WV: figures(weights_WV, names)[0],
    )


def levels_of(entries: Mapping[str, Sequence[float]]) -> np.ndarray:
    """The levels (R,) that the entries' figures need, ascending, each once."""
    return np.unique([value for values in entries.values() for value in values])


def match_free_truths(similarity_PG: np.ndarray, thresholds_R: np.ndarray) -> np.ndarray:
    """Which predictions find a truth, (P, R), at each threshold on its own.

    In the order of the rows, a prediction takes the most similar truth that is still free and reaches the threshold
    (ties: the first column); the truth is then taken.
    """
    thresholds_R = np.asarray(thresholds_R, dtype=np.float64)
    matched_PR = np.zeros((len(similarity_PG), len(thresholds_R)), dtype=bool)
    # Most predictions reach no truth at any threshold.
    row_K, column_K = np.nonzero(similarity_PG >= thresholds_R.min(initial=np.inf))
    at, level = np.nonzero(match_pairs(row_K, column_K, similarity_PG[row_K, column_K], thresholds_R))
    matched_PR[row_K[at], level] = True
    return matched_PR


def unscored_notes(key: str, inputs: ScoringInput, what: str = "truth") -> list[str]:
    """A note for each label that has predictions here but no truth, so that they do not count."""
    num_truths_L = np.bincount(inputs.truths.label_N, minlength=len(inputs.labels))
    num_predictions_L = np.bincount(inputs.predictions.label_N, minlength=len(inputs.labels))
    return [
        f"{key}: label {label!r} has no {what} here and is not scored; {num_predictions} predictions are not counted"
        for label, num_truths, num_predictions in zip(inputs.labels, num_truths_L, num_predictions_L, strict=True)
        if num_predictions and not num_truths
    ]


def _only_levels(answers: RankedAnswers, levels: np.ndarray) -> RankedAnswers:
    ignored = None if answers.ignored_PR is None else answers.ignored_PR[:, levels]
    return RankedAnswers(answers.video_P, answers.true_PR[:, levels], answers.num_truths_V, ignored)


def _mean_of_known(values: Sequence[np.ndarray], num_resamples: int) -> np.ndarray:
    """The mean (W,) over labels of those that are not NaN, NaN where all are."""
    if not values:
        return np.full(num_resamples, np.nan)
    values_LW = np.stack(values)
    known_LW = ~np.isnan(values_LW)
    return _ratio(np.where(known_LW, values_LW, 0.0).sum(axis=0), known_LW.sum(axis=0), nothing=np.nan)


def _envelope(num_true_WK: np.ndarray, num_all_WK: np.ndarray) -> np.ndarray:
    # An answer that was not drawn has the precision of the one before it, which the envelope there covers already.
    precision_WK = _ratio(num_true_WK, num_all_WK)
    return np.maximum.accumulate(precision_WK[:, ::-1], axis=1)[:, ::-1]


def _ratio(part: np.ndarray, whole: np.ndarray, nothing: float = 0.0) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, nothing), where=whole > 0)
