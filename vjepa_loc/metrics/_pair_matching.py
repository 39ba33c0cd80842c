"""Matching ranked answers to truths from a sparse list of similar pairs, at every threshold on its own.

Shapes: K pairs, N answers, G truths, R threshold levels.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vjepa_loc.metrics._average_precision import RankedAnswers
from vjepa_loc.scoring_input import ScoringInput


def match_best_free(
    answer_K: np.ndarray, truth_K: np.ndarray, similarity_K: np.ndarray, order_N: np.ndarray, levels_R: np.ndarray
) -> np.ndarray:
    """Which answers find a truth, (N, R).

    In the order of `order_N` an answer takes the most similar truth that is still free and reaches the level (ties:
    the first truth). Pairs that are missing reach no level.
    """
    found_NR = np.zeros((len(order_N), len(levels_R)), dtype=bool)
    place_K = _places(order_N)[answer_K]
    # An answer's truths stand one after the other, the most similar first, and answers in their order.
    wish = np.lexsort((truth_K, -similarity_K, place_K))
    place_K, truth_K, similarity_K = place_K[wish], truth_K[wish], similarity_K[wish]
    for level, threshold in enumerate(levels_R):
        reached = similarity_K >= threshold
        found_NR[order_N[_served(place_K[reached], truth_K[reached])], level] = True
    return found_NR


def match_best_only(
    answer_K: np.ndarray, truth_K: np.ndarray, similarity_K: np.ndarray, order_N: np.ndarray, levels_R: np.ndarray
) -> np.ndarray:
    """Which answers find a truth, (N, R): only an answer's most similar truth (ties: the first) counts, and only for
    the first answer in the order of `order_N` that reaches the level there."""
    found_NR = np.zeros((len(order_N), len(levels_R)), dtype=bool)
    place_K = _places(order_N)[answer_K]
    wish = np.lexsort((truth_K, -similarity_K, place_K))
    place_P, first = np.unique(place_K[wish], return_index=True)
    truth_P, similarity_P = truth_K[wish][first], similarity_K[wish][first]
    for level, threshold in enumerate(levels_R):
        reached = np.flatnonzero(similarity_P >= threshold)
        _, first = np.unique(truth_P[reached], return_index=True)
        found_NR[order_N[place_P[reached[first]]], level] = True
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


def _served(place_K: np.ndarray, truth_K: np.ndarray) -> np.ndarray:
    """Who gets a truth, as places, when everybody in the order of the places takes the first free one of their wishes.

    Rows are wishes: grouped by place, ascending, the dearest first. Everybody asks for their first wish at once; a
    truth keeps who comes first, and the others, also those who had it, ask for their next. As all truths prefer the
    earlier place, this ends where taking turns would (Gale and Shapley 1962).
    """
    places, wish = np.unique(place_K, return_index=True)
    last = np.append(wish[1:], len(place_K))
    truths, truth_K = np.unique(truth_K, return_inverse=True)
    nobody = len(places)
    holder_G = np.full(len(truths), nobody)
    asking = np.arange(len(places))
    while len(asking):
        wanted = truth_K[wish[asking]]
        before = holder_G[wanted]
        np.minimum.at(holder_G, wanted, asking)
        after = holder_G[wanted]
        lost = np.concatenate([asking[after != asking], np.unique(before[(before != after) & (before != nobody)])])
        wish[lost] += 1
        asking = lost[wish[lost] < last[lost]]
    return places[holder_G[holder_G != nobody]]


def _places(order_N: np.ndarray) -> np.ndarray:
    place_N = np.empty(len(order_N), dtype=np.int64)
    place_N[order_N] = np.arange(len(order_N))
    return place_N
