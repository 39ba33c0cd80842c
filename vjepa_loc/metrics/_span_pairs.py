"""Pairs of a prediction and a truth of the same video and label that overlap in time, over everything at once.

Shapes: N predictions, M truths, K pairs, R thresholds, F multiples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from vjepa_loc.metrics._average_precision import levels_of, mean_average_precision, unscored_notes
from vjepa_loc.metrics._event_matching import answers_of_labels, found_by_order, ranked
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._result import MetricResult
from vjepa_loc.overlap import paired_span_iou
from vjepa_loc.scoring_input import EventTable, ScoringInput

# Pairs that are looked at in one go, so that memory stays small.
_CHUNK = 4_000_000

_match = partial(match_pairs, last_of_equals=True)

Overlap = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From two sets of intervals (K, 2) to how much those of the same row overlap, or how close they are (K,)."""


@dataclass(frozen=True, eq=False)
class SpanPairs:
    """Indices into the predictions and the truths, and how much the two overlap."""

    prediction_K: np.ndarray
    truth_K: np.ndarray
    overlap_K: np.ndarray


def span_pairs(inputs: ScoringInput, at_least: float, overlap: Overlap = paired_span_iou) -> SpanPairs:
    """The pairs of the same video and label that overlap by `at_least`."""
    truths, predictions = inputs.truths, inputs.predictions
    group_M, group_N = _groups(inputs, truths), _groups(inputs, predictions)
    in_groups_M = np.argsort(group_M, kind="stable")
    first_N = np.searchsorted(group_M[in_groups_M], group_N, side="left")
    num_N = np.searchsorted(group_M[in_groups_M], group_N, side="right") - first_N
    spans_N2, spans_M2 = predictions.spans_N2, truths.spans_N2
    found = []
    for rows in _chunks(num_N):
        prediction_K = np.repeat(rows, num_N[rows])
        place_in_row_K = np.arange(len(prediction_K)) - np.repeat(np.cumsum(num_N[rows]) - num_N[rows], num_N[rows])
        truth_K = in_groups_M[first_N[prediction_K] + place_in_row_K]
        overlap_K = overlap(spans_N2[prediction_K], spans_M2[truth_K])
        enough = np.flatnonzero(overlap_K >= at_least)
        found.append((prediction_K[enough], truth_K[enough], overlap_K[enough]))
    nothing = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))
    return SpanPairs(*(np.concatenate(parts) for parts in zip(nothing, *found, strict=True)))


def match_spans(inputs: ScoringInput, pairs: SpanPairs, levels_R: np.ndarray) -> np.ndarray:
    """Which pairs are matches, (K, R): by descending score (ties in file order), a prediction takes the truth that it
    overlaps most of those that are free, the last in the file among equals."""
    rank_N = np.empty(len(inputs.predictions), dtype=np.int64)
    rank_N[ranked(inputs.predictions.score_N)] = np.arange(len(rank_N))
    return _match(rank_N[pairs.prediction_K], pairs.truth_K, pairs.overlap_K, levels_R)


def span_precision(
    key: str,
    inputs: ScoringInput,
    entries: Mapping[str, Sequence[float]],
    pairs: SpanPairs,
    headline: Sequence[str] | None = None,
) -> MetricResult:
    """`<key>/map@...` of matched spans: mean average precision over the labels that have truth."""
    levels_R, truths, order_N = levels_of(entries), inputs.truths, ranked(inputs.predictions.score_N)
    true_NR = found_by_order(order_N, pairs.prediction_K, pairs.truth_K, pairs.overlap_K, levels_R, _match)
    everything = np.ones(len(truths), dtype=bool)
    answers = answers_of_labels(inputs, np.unique(truths.label_N).tolist(), order_N, true_NR, everything)
    return mean_average_precision(
        key, inputs, answers, entries, levels_R, headline=headline, notes=unscored_notes(key, inputs)
    )


def best_of_first(
    inputs: ScoringInput, pairs: SpanPairs, order_N: np.ndarray, multiples: Sequence[int]
) -> np.ndarray:
    """How much each truth overlaps the best of the first F * n predictions of its video and label, (M, F), where n is
    how many truths stand there; 0 where none of them is in `pairs`. `order_N` says which predictions come first."""
    group_M, group_N = _groups(inputs, inputs.truths), _groups(inputs, inputs.predictions)
    sorted_N = order_N[np.argsort(group_N[order_N], kind="stable")]
    in_groups_N = group_N[sorted_N]
    place_N = np.empty(len(group_N), dtype=np.int64)
    place_N[sorted_N] = np.arange(len(group_N)) - np.searchsorted(in_groups_N, in_groups_N, side="left")
    in_groups_M = np.sort(group_M)
    num_M = np.searchsorted(in_groups_M, group_M, side="right") - np.searchsorted(in_groups_M, group_M, side="left")
    best_MF = np.zeros((len(group_M), len(multiples)))
    for column, multiple in enumerate(multiples):
        first = place_N[pairs.prediction_K] < multiple * num_M[pairs.truth_K]
        np.maximum.at(best_MF[:, column], pairs.truth_K[first], pairs.overlap_K[first])
    return best_MF


def num_out_of_order(inputs: ScoringInput) -> int:
    """How many predictions follow in the file one of lower score of their video and label."""
    group_N, score_N = _groups(inputs, inputs.predictions), inputs.predictions.score_N
    order_N = np.argsort(group_N, kind="stable")
    same = np.diff(group_N[order_N]) == 0
    return int((same & (np.diff(score_N[order_N]) > 0)).sum())


def _groups(inputs: ScoringInput, events: EventTable) -> np.ndarray:
    """A number per event, the same for those of one video and label."""
    return events.video_N * len(inputs.labels) + events.label_N


def _chunks(num_N: np.ndarray) -> list[np.ndarray]:
    """Indices of the rows with any pairs, in pieces of about `_CHUNK` pairs."""
    rows = np.flatnonzero(num_N)
    return np.split(rows, np.flatnonzero(np.diff(np.cumsum(num_N[rows]) // _CHUNK)) + 1) if len(rows) else []
