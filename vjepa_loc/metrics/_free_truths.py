"""Which prediction takes which truth, from the pairs that are similar at all; every video, label and threshold at once.

By descending rank, each prediction takes the most similar truth that is still free and reaches the threshold. Every
truth ranks the predictions alike, so this is the one stable matching, and offers made in rounds find it (Gale and
Shapley 1962): each prediction without a truth offers itself to its next best one, which keeps the highest ranked of its
suitors. A round is a few array operations, and all rounds together make at most one offer per pair and threshold.

Shapes: K pairs, R thresholds, P predictions, S suitors.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

# Predictions times thresholds that are worked on at once, so that memory stays small.
_CHUNK = 4_000_000


def match_pairs(
    prediction_K: np.ndarray,
    truth_K: np.ndarray,
    similarity_K: np.ndarray,
    thresholds_R: np.ndarray,
    last_of_equals: bool = False,
) -> np.ndarray:
    """Which pairs are matches, (K, R), at each threshold on its own.

    `prediction_K` numbers predictions by rank, 0 the first to choose (among those that can meet in a truth), `truth_K`
    numbers truths; a pair stands there once, in any order, and pairs that are left out never match. Of equally similar
    truths a prediction tries the lowest number first, or the highest with `last_of_equals`.
    """
    thresholds_R = np.asarray(thresholds_R, dtype=np.float64)
    matched_KR = np.zeros((len(prediction_K), len(thresholds_R)), dtype=bool)
    # Sorting is what takes long, and at high thresholds few pairs are left.
    near = np.flatnonzero(similarity_K >= thresholds_R.min(initial=np.inf))
    if not len(near):
        return matched_KR
    prediction_K, truth_K, similarity_K = prediction_K[near], truth_K[near], similarity_K[near]
    order_K = _by_choice(prediction_K, -truth_K if last_of_equals else truth_K, similarity_K)
    similarity_K = similarity_K[order_K]
    truth_K = np.unique(truth_K[order_K], return_inverse=True)[1]
    first_P = np.flatnonzero(np.diff(prediction_K[order_K], prepend=-1))
    num_truths, step = int(truth_K.max()) + 1, max(1, _CHUNK // len(first_P))
    for start in range(0, len(thresholds_R), step):
        some_R = thresholds_R[start : start + step]
        reach_RP = np.stack([np.add.reduceat(similarity_K >= level, first_P, dtype=np.int64) for level in some_R])
        at, level = _accepted(first_P, reach_RP, truth_K, num_truths)
        matched_KR[near[order_K[at]], start + level] = True
    return matched_KR


def _by_choice(prediction_K: np.ndarray, tie_K: np.ndarray, similarity_K: np.ndarray) -> np.ndarray:
    """The order (K,) by prediction, then descending similarity, then `tie_K`.

    Most predictions are near one truth alone: counting brings them into order, and only the others are sorted.
    """
    num_pairs = len(prediction_K)
    places = sparse.coo_array((np.arange(num_pairs), (prediction_K, np.arange(num_pairs)))).tocsr()
    order_K = places.data
    among_several = np.repeat(np.diff(places.indptr) > 1, np.diff(places.indptr))
    several = order_K[among_several]
    order_K[among_several] = several[np.lexsort((tie_K[several], -similarity_K[several], prediction_K[several]))]
    return order_K


def _accepted(
    first_P: np.ndarray, reach_RP: np.ndarray, truth_K: np.ndarray, num_truths: int
) -> tuple[np.ndarray, np.ndarray]:
    """The matching pairs and their levels. A prediction's truths, best first, stand from `first_P` on in `truth_K`, and
    the first `reach_RP` of them are similar enough."""
    num_levels, num_predictions = reach_RP.shape
    # A suitor is a prediction at one level, a place a truth at one level; lower suitors rank higher.
    next_S = np.tile(first_P, num_levels)
    stop_S = next_S + reach_RP.ravel()
    nobody = len(next_S)
    holder_of_place = np.full(num_levels * num_truths, nobody, dtype=np.int64)
    suitors = np.flatnonzero(reach_RP.ravel())
    while len(suitors):
        places = suitors // num_predictions * num_truths + truth_K[next_S[suitors]]
        held = holder_of_place[places]
        np.minimum.at(holder_of_place, places, suitors)
        put_out = held[suitors < held]
        refused = np.concatenate([suitors[holder_of_place[places] != suitors], np.unique(put_out[put_out < nobody])])
        next_S[refused] += 1
        suitors = refused[next_S[refused] < stop_S[refused]]
    holders = holder_of_place[holder_of_place < nobody]
    return next_S[holders], holders // num_predictions
