"""Average precision of ranked answers, under each convention's curve, for one set of videos or for many resamples.

Shapes: P answers of one label, G its truths, R threshold levels, V videos, W resamples of the videos, K answers that
found a truth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from vjepa_loc.metrics._ratios import mean_of_known
from vjepa_loc.metrics._result import MetricResult
from vjepa_loc.scoring_input import ScoringInput

# Up to so many entries of a metric each get an interval.
_FEW = 4

# Elements of the largest temporary array: memory stays small, and the arrays stay in the processor's cache.
_CHUNK = 500_000


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
    return np.einsum("wk,wk->w", _envelope(num_true_WK, num_all_WK), copies_WK) / num_truths_W


def trapezoid_curve(copies_WK, num_true_WK, num_all_WK, num_truths_W) -> np.ndarray:
    """Area under straight lines between the points of the curve, from precision 1 at recall 0.

    As pr_to_ap in MCG-NJU/MOC-Detector, src/ACT_utils/ACT_utils.py. Only true answers move the recall, and the line to
    one starts at the precision right before it.
    """
    true_WK, all_WK = num_true_WK - copies_WK, num_all_WK - copies_WK
    left_WK = np.where(all_WK > 0, true_WK / np.maximum(all_WK, 1), 1.0)
    area_W = np.einsum("wk,wk->w", left_WK + (true_WK + 1) / (all_WK + 1), copies_WK > 0)
    for copy in range(1, int(copies_WK.max(initial=0))):
        at = np.flatnonzero(copies_WK > copy)
        num_true, num_all = true_WK.ravel()[at] + copy, all_WK.ravel()[at] + copy
        lines = num_true / num_all + (num_true + 1) / (num_all + 1)
        area_W += np.bincount(at // copies_WK.shape[1], weights=lines, minlength=len(area_W))
    return area_W / 2 / num_truths_W


def coco_curve(copies_WK, num_true_WK, num_all_WK, num_truths_W) -> np.ndarray:
    """Mean of the precision envelope at the recalls 0, 0.01, ..., 1. As accumulate in cocodataset/cocoapi, cocoeval.py."""
    recalls_S, num_truths_W1 = np.linspace(0.0, 1.0, 101), num_truths_W[:, None]
    # The fewest true answers that reach each recall, compared as quotients as there. The envelope at the first true
    # answer is that at recall 0.
    needed_WS = np.maximum(np.ceil(recalls_S * num_truths_W1), 1)
    needed_WS -= ((needed_WS - 1) / num_truths_W1 >= recalls_S) & (needed_WS > 1)
    needed_WS += needed_WS / num_truths_W1 < recalls_S
    # One search over all rows, each of which goes on counting where the one before ended.
    num_true_flat = np.cumsum(copies_WK, dtype=np.int64)
    total_W1 = num_true_WK[:, -1:] if num_true_WK.shape[1] else np.zeros_like(num_truths_W1)
    before_W1 = np.cumsum(total_W1, axis=0) - total_W1
    reached_WS = needed_WS <= total_W1
    at = np.searchsorted(num_true_flat, (before_W1 + needed_WS.astype(np.int64))[reached_WS], side="left")
    # The best from each of these answers to the next; in a row's last stretch lies also the next row's beginning, where
    # nothing is true yet.
    best_WS = np.zeros(needed_WS.shape)
    if len(at):
        best_WS[reached_WS] = np.maximum.reduceat(_precision(num_true_WK, num_all_WK).ravel(), at)
    return np.maximum.accumulate(best_WS[:, ::-1], axis=1).mean(axis=1)


def average_precisions(answers: RankedAnswers, weights_WV: np.ndarray, curve: Curve) -> np.ndarray:
    """AP (W, R) of one label where each video counts as often as its weight says; NaN where no truth is left.

    A video that counts twice gives its answers and truths twice, the copies of an answer one after the other.
    """
    weights_WV = np.asarray(weights_WV, dtype=np.int32)
    num_resamples, num_levels = len(weights_WV), answers.true_PR.shape[1]
    with_truths = np.flatnonzero(answers.num_truths_V)
    num_truths_W = weights_WV.take(with_truths, axis=1) @ np.asarray(answers.num_truths_V, dtype=np.int64)[with_truths]
    # Nothing below the last true answer counts, and no video that has no answer above it.
    at_U = np.flatnonzero(answers.true_PR.any(axis=1))
    videos, video_P = np.unique(answers.video_P[: at_U[-1] + 1 if len(at_U) else 0], return_inverse=True)
    # At each level, how many answers stand between the true ones: no other rank is looked at.
    found_of_level = [np.flatnonzero(answers.true_PR[:, level]) for level in range(num_levels)]
    if answers.ignored_PR is None:
        steps_of_level = [_steps_between(at_U, video_P, len(videos))] * num_levels
        place_of_level = [np.searchsorted(at_U, found_K) for found_K in found_of_level]
    else:
        steps_of_level = [
            _steps_between(found_K, video_P, len(videos), ~answers.ignored_PR[:, level])
            for level, found_K in enumerate(found_of_level)
        ]
        place_of_level = [np.arange(len(found_K)) for found_K in found_of_level]
    ap_WR = np.empty((num_resamples, num_levels))
    step = max(1, _CHUNK // max(len(at_U), len(videos), 1))
    for start in range(0, num_resamples, step):
        chunk = slice(start, start + step)
        some_WV = weights_WV[chunk].take(videos, axis=1)
        some_VW = np.ascontiguousarray(some_WV.T)
        num_all_WU, last = None, None
        for level, (found_K, steps, place_K) in enumerate(zip(found_of_level, steps_of_level, place_of_level, strict=True)):
            if steps is not last:
                # Rows in one piece: sums along them are many times faster than across.
                num_all_WU = np.cumsum(np.ascontiguousarray((steps @ some_VW).T), axis=1, dtype=np.int32)
                last = steps
            copies_WK = some_WV.take(video_P[found_K], axis=1)
            num_true_WK = np.cumsum(copies_WK, axis=1, dtype=np.int32)
            # Without truth there is no true answer either: any number above 0 will do.
            num_truths = np.maximum(num_truths_W[chunk], 1)
            ap_WR[chunk, level] = curve(copies_WK, num_true_WK, num_all_WU.take(place_K, axis=1), num_truths)
    ap_WR[num_truths_W == 0] = np.nan
    return ap_WR


def _steps_between(
    at_K: np.ndarray, video_P: np.ndarray, num_videos: int, counted_P: np.ndarray | None = None
) -> sparse.csr_array:
    """How many counted answers of each video stand after the ranks `at_K[k - 1]` and up to `at_K[k]`, (K, V)."""
    rank = np.arange(at_K[-1] + 1 if len(at_K) else 0)
    rank = rank if counted_P is None else rank[counted_P[: len(rank)]]
    entries = np.ones(len(rank), dtype=np.int32), (np.searchsorted(at_K, rank), video_P[rank])
    return sparse.csr_array(entries, shape=(len(at_K), num_videos))


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
    figure is 0 where no label is left, and a note says so. `headline` are names of entries; by default all of a few, and
    of many 0.50 and 0.50:0.95 where they are asked for, else the first.
    """
    levels_R = np.asarray(levels_R, dtype=np.float64)
    keys = {name: f"{key}/{quantity}@{name}" for name in entries}
    if headline is None:
        main = [name for name in ("0.50", "0.50:0.95") if name in keys]
        headline = list(dict.fromkeys([*main, *keys])) if len(keys) <= _FEW else main or list(keys)[:1]
    names = [name for name in headline if name in keys]
    columns = {name: np.searchsorted(levels_R, np.asarray(values)) for name, values in entries.items()}

    def figures(weights_WV: np.ndarray, chosen: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, dict]]:
        weights_WV = np.ascontiguousarray(weights_WV, dtype=np.int32)
        needed = np.unique(np.concatenate([columns[name] for name in chosen])) if chosen else np.empty(0, dtype=int)
        place = {name: np.searchsorted(needed, columns[name]) for name in chosen}
        classes = {label: _only_levels(answers, needed) for label, answers in answers_of.items()}
        ap = {label: average_precisions(answers, weights_WV, curve) for label, answers in classes.items()}
        if classes_without_truth == "zero":
            ap = {label: np.nan_to_num(ap_WR, nan=0.0) for label, ap_WR in ap.items()}
        per_class = {
            label: {keys[name]: ap_WR[:, place[name]].mean(axis=1) for name in chosen} for label, ap_WR in ap.items()
        }
        by_label = {keys[name]: [one[keys[name]] for one in per_class.values()] for name in chosen}
        mean = {name: mean_of_known(np.reshape(values, (-1, len(weights_WV)))) for name, values in by_label.items()}
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


def _precision(num_true_WK: np.ndarray, num_all_WK: np.ndarray) -> np.ndarray:
    return num_true_WK / np.maximum(num_all_WK, 1)


def _envelope(num_true_WK: np.ndarray, num_all_WK: np.ndarray) -> np.ndarray:
    # An answer that was not drawn has the precision of the one before it, which the envelope there covers already.
    return np.maximum.accumulate(_precision(num_true_WK, num_all_WK)[:, ::-1], axis=1)[:, ::-1]
