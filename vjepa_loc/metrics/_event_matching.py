"""Ranking predictions, letting them find truths in that order, and the ranked answers of each label.

Shapes: K pairs, N predictions, G truths, R thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from vjepa_loc.metrics._average_precision import RankedAnswers
from vjepa_loc.scoring_input import ScoringInput

Match = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""`match_pairs`, or another rule from ranks of predictions (K,), truths (K,), similarities (K,) and thresholds (R,) to
which pairs are matches (K, R)."""


def ranked(score_N: np.ndarray) -> np.ndarray:
    """Indices by descending score, ties in file order."""
    return np.argsort(-score_N, kind="stable")


def match_best_only(
    prediction_K: np.ndarray, truth_K: np.ndarray, similarity_K: np.ndarray, thresholds_R: np.ndarray
) -> np.ndarray:
    """Which pairs are matches, (K, R): as `match_pairs`, but a prediction looks at its most similar truth alone (ties:
    the first), and where another one has found that truth, it finds none."""
    matched_KR = np.zeros((len(prediction_K), len(thresholds_R)), dtype=bool)
    order_K = np.lexsort((truth_K, -similarity_K, prediction_K))
    best_P = order_K[np.unique(prediction_K[order_K], return_index=True)[1]]
    for level, threshold in enumerate(thresholds_R):
        reached = best_P[similarity_K[best_P] >= threshold]
        matched_KR[reached[np.unique(truth_K[reached], return_index=True)[1]], level] = True
    return matched_KR


def found_by_order(
    order_N: np.ndarray,
    prediction_K: np.ndarray,
    truth_K: np.ndarray,
    similarity_K: np.ndarray,
    levels_R: np.ndarray,
    match: Match,
) -> np.ndarray:
    """Which of N predictions find a truth, (N, R), when `match` lets them choose in the order of `order_N`."""
    place_N, found_NR = np.empty(len(order_N), dtype=np.int64), np.zeros((len(order_N), len(levels_R)), dtype=bool)
    place_N[order_N] = np.arange(len(order_N))
    at, level = np.nonzero(match(place_N[prediction_K], truth_K, similarity_K, levels_R))
    found_NR[prediction_K[at], level] = True
    return found_NR


def answers_of_labels(
    inputs: ScoringInput,
    labels: Iterable[int],
    order_N: np.ndarray,
    found_NR: np.ndarray,
    counted_G: np.ndarray,
    ignored_NR: np.ndarray | None = None,
) -> dict[str, RankedAnswers]:
    """The ranked answers of `labels`: of the predictions `order_N`, best first, `found_NR` says which are true, where
    the truths `counted_G` (mask) stand for something to find."""
    truths, predictions = inputs.truths, inputs.predictions
    label_of = predictions.label_N[order_N]
    answers = {}
    for label in labels:
        own = order_N[label_of == label]
        videos = truths.video_N[counted_G & (truths.label_N == label)]
        answers[inputs.labels[label]] = RankedAnswers(
            predictions.video_N[own],
            found_NR[own],
            np.bincount(videos, minlength=inputs.num_videos),
            None if ignored_NR is None else ignored_NR[own],
        )
    return answers
