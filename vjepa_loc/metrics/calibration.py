"""Calibration: whether a score of 0.8 is right in 8 of 10 cases. Expected calibration error and reliability diagrams.

- Of events: each prediction's score against whether it finds a truth at a temporal IoU of 0.5, matched as `tal`
  does; a prediction of a label without truth is false. `ece`, `adaptive_ece`.
- Of videos, where `classification` applies: the probability of the most probable label against whether it is the
  video's. A video without predictions has no confidence and is left out. `video_ece`, `video_adaptive_ece`.

The error is the sum over bins of |mean score - share of right ones|, weighted by the share of predictions in the bin.
`ece` has 15 bins of equal width, each without its lower and with its upper end (0 itself lies in the first, where the
reference implementation leaves it out); `adaptive_ece` has 15 bins of equal number, as numpy.array_split cuts the
scores in ascending order, equal ones in file order. The tIoU is fixed: thresholds change nothing.

Sources: Guo et al., On Calibration of Modern Neural Networks, 2017 (gpleiss/temperature_scaling); bins of equal number
after Nguyen and O'Connor, Posterior calibration and exploratory analysis for natural language processing models, 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vjepa_loc.metrics._class_scores import class_scores
from vjepa_loc.metrics._result import MetricResult, Thresholds, metric_key, not_applicable
from vjepa_loc.metrics._span_pairs import match_spans, span_pairs
from vjepa_loc.picture import COLOURS, INK, MISSED, Picture, drawing, figure_svg
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.tables import ResultTable

CONVENTIONS = {"": "expected calibration error in 15 bins: of events found at tIoU 0.5 as tal, and of videos' classes"}
DEFAULT_THRESHOLDS: Thresholds = (0.5,)
TIOU = 0.5
NUM_BINS = 15
_EDGES = np.linspace(0, 1, NUM_BINS + 1)


def compute(inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS) -> MetricResult:
    """`calibration/ece`, `adaptive_ece` and, where videos have labels, `video_ece`, `video_adaptive_ece`; `thresholds`
    change nothing. Does not apply without predictions, without truth, or where scores lie outside 0..1."""
    key = metric_key("calibration", convention)
    score_N = inputs.predictions.score_N
    if not len(score_N):
        return not_applicable("no predictions, so that there is no score to hold against the truth")
    outside = (score_N < 0) | (score_N > 1)
    if outside.any():
        return not_applicable(
            f"{int(outside.sum())} of {len(score_N)} scores lie outside 0..1 ({score_N.min():g} to {score_N.max():g}); "
            "expected probabilities, such as a sigmoid gives"
        )
    judged, notes = {}, []
    if len(inputs.truths):
        judged["", "events"] = Judged(score_N, _found(inputs), inputs.predictions.video_N, inputs.num_videos)
    classes = class_scores(inputs, key)
    if not isinstance(classes, str):
        video, label, score = classes.videos.best()
        if len(video):
            judged["video_", "videos"] = Judged(score, label == classes.truth_V[video], video, inputs.num_videos)
        notes += classes.notes
    elif any(video.label is not None for video in (inputs.dataset.videos[one] for one in inputs.video_ids)):
        notes.append(f"{key}: the videos' classes are left out: {classes}")
    if not judged:
        return not_applicable(f"no truth: no events and no predicted labels in {inputs.num_videos} videos")

    values: dict[str, float] = {}
    errors, tables, pictures = {}, [], []
    for (prefix, what), one in judged.items():
        values |= {f"{key}/{prefix}ece": one.error(), f"{key}/{prefix}adaptive_ece": one.adaptive_error()}
        errors[f"{key}/{prefix}ece"] = one
        tables.append(one.table(what))
        pictures.append(one.picture(what))
    return MetricResult(
        values,
        notes=notes,
        headline=tuple(errors),
        resample=lambda weights_WV: {name: one.errors(weights_WV) for name, one in errors.items()},
        tables=tuple(tables),
        pictures=tuple(pictures),
    )


@dataclass(frozen=True, eq=False)
class Judged:
    """N predictions with their scores, whether each is right, and the video of each."""

    score_N: np.ndarray
    right_N: np.ndarray
    video_N: np.ndarray
    num_videos: int

    def sums(self) -> np.ndarray:
        """By video and bin, (3, V, NUM_BINS): how many, their scores summed, how many are right."""
        bin_N = np.clip(np.searchsorted(_EDGES, self.score_N, side="left") - 1, 0, NUM_BINS - 1)
        cell_N, num_cells = self.video_N * NUM_BINS + bin_N, self.num_videos * NUM_BINS
        columns = [np.bincount(cell_N, weights=of_N, minlength=num_cells) for of_N in (None, self.score_N, self.right_N)]
        return np.stack(columns).astype(np.float64).reshape(3, self.num_videos, NUM_BINS)

    def errors(self, weights_WV: np.ndarray) -> np.ndarray:
        """The error (W,) in bins of equal width, where each video counts as often as its weight says; NaN where no
        prediction is left."""
        num_WB, score_WB, right_WB = np.asarray(weights_WV, dtype=np.float64) @ self.sums()
        num_W = num_WB.sum(axis=1)
        gap_W = np.abs(score_WB - right_WB).sum(axis=1)
        return np.divide(gap_W, num_W, out=np.full(len(num_W), np.nan), where=num_W > 0)

    def error(self) -> float:
        return float(self.errors(np.ones((1, self.num_videos)))[0])

    def adaptive_error(self) -> float:
        """The error in bins of equal number."""
        order = np.argsort(self.score_N, kind="stable")
        gap_N = (self.score_N - self.right_N)[order]
        return float(sum(abs(part.sum()) for part in np.array_split(gap_N, NUM_BINS)) / len(gap_N))

    def table(self, what: str) -> ResultTable:
        num_B, score_B, right_B = self.sums().sum(axis=1)
        rows = tuple(
            (
                float(_EDGES[at]),
                float(_EDGES[at + 1]),
                int(num_B[at]),
                float(score_B[at] / num_B[at]) if num_B[at] else None,
                float(right_B[at] / num_B[at]) if num_B[at] else None,
            )
            for at in range(NUM_BINS)
        )
        return ResultTable(f"Calibration of {what}", ("above", "up to", what, "mean score", "right"), rows)

    def picture(self, what: str) -> Picture:
        num_B, score_B, right_B = self.sums().sum(axis=1)
        known_B = num_B > 0
        mean_B = np.divide(score_B, num_B, out=np.zeros(NUM_BINS), where=known_B)
        share_B = np.divide(right_B, num_B, out=np.zeros(NUM_BINS), where=known_B)
        middle_B, width = (_EDGES[:-1] + _EDGES[1:]) / 2, 1 / NUM_BINS
        with drawing(5.2, 4.4) as figure:
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
            upper.bar(middle_B, share_B, width * 0.92, color=COLOURS[0], label="right")
            upper.vlines(mean_B[known_B], share_B[known_B], mean_B[known_B], color=MISSED, linewidth=1.5, label="gap to the mean score")
            upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="calibrated")
            upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
            # Above the axes: bars may fill any corner.
            upper.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
            lower.bar(middle_B, num_B, width * 0.92, color=INK)
            lower.set(xlabel="score", ylabel=what)
            svg = figure_svg(figure)
        caption = (
            f"{len(self.score_N)} {what} in {NUM_BINS} bins of their score: bars show the share that is right, below is how "
            f"many there are. Where a bar ends below the dashed line the scores promise too much. ECE {self.error():.3f}."
        )
        return Picture(f"Calibration of {what}", caption, svg)


def _found(inputs: ScoringInput) -> np.ndarray:
    """Which predictions (P,) find a truth."""
    pairs = span_pairs(inputs, TIOU)
    found_P = np.zeros(len(inputs.predictions), dtype=bool)
    found_P[pairs.prediction_K[match_spans(inputs, pairs, np.array([TIOU]))[:, 0]]] = True
    return found_P
