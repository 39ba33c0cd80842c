"""Spotting of boundaries: average precision of starts and of ends within a few frames, and how far off they are.

`start_map@1` and `end_map@1` take one boundary of every event as a point in time, of its label, and are scored as
jhong93/spot, util/score.py: per label, by descending score (ties in file order), a prediction takes the closest truth
of its video that is not found yet (the first in the file among equals) if it is at most the tolerance away, else it
is false; AP is the area under the interpolated precision envelope, the figure the mean over labels with truth. The
tolerances are 0, 1, 2 and 4 frames, `@0:4` is the mean over the four. Thresholds of IoU have no meaning here and are
ignored.

A start is `start_frame`, an end is `end_frame` of the half-open interval: the edge after the last frame, so that both
are edges and an event that is shifted is off by the same at either. Frames stay real numbers: 2.5 frames are within a
tolerance of 4 and not of 2. As there, truths of one video and label at the very same position can be found only once,
but each of them counts: the notes say how many there are. The official script stops at a score above 1, and
where the predictions have not the videos of the truth; here neither matters.

`start_error_frames` and `end_error_frames` are the mean distance in frames, prediction to truth, of the events that are
matched at temporal IoU 0.5 as `tal` matches them, over all labels; `..._median_frames` the median. They say nothing of
what is missed, and are left out where nothing is matched. The bias in the table is the mean of prediction minus truth:
above 0 is late.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vjepa_loc.metrics._average_precision import mean_average_precision, unscored_notes
from vjepa_loc.metrics._event_matching import answers_of_labels, found_by_order, ranked
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._result import MetricResult, Thresholds, metric_key, together
from vjepa_loc.metrics._span_pairs import match_spans, span_pairs
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.tables import ResultTable

CONVENTIONS = {
    "": "start and end frames within a tolerance of the closest truth not found yet, as jhong93/spot; errors at IoU 0.5"
}
DEFAULT_THRESHOLDS: Thresholds = ()

TOLERANCES = (0.0, 1.0, 2.0, 4.0)
"""In frames."""

_ENTRIES = {**{f"{tolerance:.0f}": (tolerance,) for tolerance in TOLERANCES}, "0:4": TOLERANCES}
_HEADLINE = ("1",)
_MATCHED_AT = 0.5
_BOUNDARIES = ("start", "end")


def compute(
    inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`spotting/start_map@...`, `spotting/end_map@...` and errors in frames; `thresholds` are ignored."""
    key = metric_key("spotting", convention)
    precisions = [_precision(key, inputs, column, boundary) for column, boundary in enumerate(_BOUNDARIES)]
    return together(*precisions, _errors(key, inputs), notes=unscored_notes(key, inputs))


def _precision(key: str, inputs: ScoringInput, column: int, boundary: str) -> MetricResult:
    truths, predictions = inputs.truths, inputs.predictions

    def closeness(a_K2: np.ndarray, b_K2: np.ndarray) -> np.ndarray:
        return -np.abs(a_K2[:, column] - b_K2[:, column])

    pairs = span_pairs(inputs, -max(TOLERANCES), closeness)
    hidden_M = _behind_another(inputs, truths.spans_N2[:, column])
    open_K = ~hidden_M[pairs.truth_K]
    order_N = ranked(predictions.score_N)
    true_NR = found_by_order(
        order_N, pairs.prediction_K[open_K], pairs.truth_K[open_K], pairs.overlap_K[open_K], -np.array(TOLERANCES), match_pairs
    )
    answers = answers_of_labels(
        inputs, np.unique(truths.label_N).tolist(), order_N, true_NR, np.ones(len(truths), dtype=bool)
    )
    notes = []
    if hidden_M.any():
        notes.append(
            f"{key}: {int(hidden_M.sum())} of {len(truths)} truth events {boundary} with another one of their video and "
            "label; by the official rule these cannot be found"
        )
    return mean_average_precision(
        key, inputs, answers, _ENTRIES, np.array(TOLERANCES), quantity=f"{boundary}_map", headline=_HEADLINE, notes=notes
    )


def _behind_another(inputs: ScoringInput, position_M: np.ndarray) -> np.ndarray:
    """Which truths, (M,), have the position of an earlier one of their video and label."""
    truths = inputs.truths
    columns = np.stack([truths.video_N, truths.label_N, position_M], axis=1)
    hidden_M = np.ones(len(truths), dtype=bool)
    hidden_M[np.unique(columns, axis=0, return_index=True)[1]] = False
    return hidden_M


def _errors(key: str, inputs: ScoringInput) -> MetricResult:
    truths, predictions = inputs.truths, inputs.predictions
    pairs = span_pairs(inputs, _MATCHED_AT)
    matched = match_spans(inputs, pairs, np.array([_MATCHED_AT]))[:, 0]
    truth_K = pairs.truth_K[matched]
    # Of each matched event, prediction minus truth: start, end.
    late_K2 = predictions.spans_N2[pairs.prediction_K[matched]] - truths.spans_N2[truth_K]
    label_K, video_K = truths.label_N[truth_K], truths.video_N[truth_K]
    headline = tuple(f"{key}/{boundary}_error_frames" for boundary in _BOUNDARIES)

    def resample(weights_WV: np.ndarray) -> dict[str, np.ndarray]:
        num_W = weights_WV @ np.bincount(video_K, minlength=inputs.num_videos)
        figures = {}
        for column, name in enumerate(headline):
            distance_V = np.bincount(video_K, weights=np.abs(late_K2[:, column]), minlength=inputs.num_videos)
            figures[name] = np.divide(weights_WV @ distance_V, num_W, out=np.full(len(num_W), np.nan), where=num_W > 0)
        return figures

    if not len(truth_K):
        note = f"{key}: no prediction is matched at a temporal IoU of {_MATCHED_AT}, there is no boundary error to give"
        return MetricResult({}, notes=[note] if len(truths) else [], resample=lambda weights_WV: {})
    late_of_label = {inputs.labels[label]: late_K2[label_K == label] for label in np.unique(truths.label_N).tolist()}
    num_truths_L = np.bincount(truths.label_N, minlength=len(inputs.labels))
    num_truths = dict(zip(inputs.labels, num_truths_L.tolist(), strict=True))
    table = ResultTable(
        f"Boundary errors in frames of events matched at temporal IoU {_MATCHED_AT}",
        (
            "class",
            "truth",
            "matched",
            *(f"{boundary} {what}" for boundary in _BOUNDARIES for what in ("mean distance", "median distance", "bias")),
        ),
        (
            ("all", len(truths), len(late_K2), *_row(late_K2)),
            *((name, num_truths[name], len(late), *_row(late)) for name, late in late_of_label.items()),
        ),
    )
    per_class = {name: _figures(key, late) for name, late in late_of_label.items() if len(late)}
    return MetricResult(_figures(key, late_K2), per_class, [], headline, resample, (table,))


def _figures(key: str, late_K2: np.ndarray) -> dict[str, float]:
    distance_K2 = np.abs(late_K2)
    figures = {}
    for column, boundary in enumerate(_BOUNDARIES):
        figures[f"{key}/{boundary}_error_frames"] = float(distance_K2[:, column].mean())
        figures[f"{key}/{boundary}_error_median_frames"] = float(np.median(distance_K2[:, column]))
    return figures


def _row(late_K2: np.ndarray) -> Sequence[float | None]:
    if not len(late_K2):
        return [None] * 6
    distance_K2 = np.abs(late_K2)
    return [
        float(value)
        for column in range(len(_BOUNDARIES))
        for value in (distance_K2[:, column].mean(), np.median(distance_K2[:, column]), late_K2[:, column].mean())
    ]
