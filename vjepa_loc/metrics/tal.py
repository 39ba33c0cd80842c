"""Temporal localisation by the ActivityNet protocol: mean average precision over the IoU of half-open intervals.

Per class, predictions are taken by descending score, ties in the order of the file. Each tries the truths of its
video and label in descending temporal IoU and takes the first free one with IoU >= threshold, else it is false.
Intervals are half-open, in frames. AP is the area under the interpolated precision envelope; the figure is the mean
over classes, then over thresholds. Source: activitynet/ActivityNet, Evaluation/eval_detection.py.

The classes are, as there, those of the dataset that have truth in the evaluated videos; one without predictions
counts 0. The official script stops with an error at a predicted label without truth; here, as in OpenTAD, such
predictions are left out, and the notes count them. Both tools sort with an unstable sort and reverse it: among equal
scores the order here is the file's, and of truths that a prediction overlaps equally the last in the file is tried
first, as there where they are few. A range has the floats of numpy.linspace, which makes the official default: that
from 0.1 to 0.9 holds 0.30000000000000004, which an overlap of exactly 3/10 does not reach.

`tal[drop]` is sming256/OpenTAD, opentad/evaluations/mAP.py (after ActionFormer): a truth is dropped when an earlier
one of its video and label, itself not dropped, starts and ends within a millisecond of it (within 1/1000 frame in a
video without fps). Its recall@k is, per class, the share of truths that any of the first k * n predictions by score
reaches with IoU >= threshold, n being the truths of that class in that video; one prediction may find several truths.
The figure is the mean over the classes.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from vjepa_loc.metrics._average_precision import levels_of
from vjepa_loc.metrics._event_matching import ranked
from vjepa_loc.metrics._recall import recall_of_first
from vjepa_loc.metrics._result import (
    GROCERY_VISION_THRESHOLDS,
    MetricResult,
    Thresholds,
    linearly_spaced,
    metric_key,
    threshold_names,
    together,
)
from vjepa_loc.metrics._span_pairs import best_of_first, span_pairs, span_precision
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.timegrid import nominal_frames_to_seconds

CONVENTIONS = {
    "": "temporal IoU of half-open intervals; each prediction takes the best free truth; as ActivityNet",
    "drop": "as tal, repeated truths dropped first, with recall of the first k times as many predictions; as OpenTAD",
}
DEFAULT_THRESHOLDS = GROCERY_VISION_THRESHOLDS

RECALL_MULTIPLES = (1, 5)

# In seconds, or in frames of a video without fps.
_SAME = 1e-3


def compute(
    inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`tal/map@...` of the scored events, with `tal[drop]/recall@...@k` beside it. Raises ConfigError for wrong thresholds."""
    key = metric_key("tal", convention)
    entries = {name: linearly_spaced(values) for name, values in threshold_names(thresholds).items()}
    if convention != "drop":
        return span_precision(key, inputs, entries, span_pairs(inputs, levels_of(entries)[0]))
    kept_N = first_of_repeated(inputs)
    num_dropped = int((~kept_N).sum())
    notes = [f"{key}: {num_dropped} of {len(kept_N)} truth events repeat another one and are dropped"] if num_dropped else []
    inputs = inputs.with_truths(inputs.truths.where(kept_N))
    pairs = span_pairs(inputs, levels_of(entries)[0])
    precision = span_precision(key, inputs, entries, pairs)
    best_MF = best_of_first(inputs, pairs, ranked(inputs.predictions.score_N), RECALL_MULTIPLES)
    names = {(entry, k): f"{key}/recall@{entry}@{k}" for entry in entries for k in RECALL_MULTIPLES}
    single = "0.50" if "0.50" in entries else next(iter(entries))
    headline = [names[single, k] for k in RECALL_MULTIPLES]
    recall = recall_of_first(
        inputs, names, entries, best_MF, RECALL_MULTIPLES, over_labels=True, strict=False, headline=headline
    )
    return together(precision, recall, notes=notes)


def first_of_repeated(inputs: ScoringInput) -> np.ndarray:
    """Which truths, (N,), are not a repetition of an earlier one that is kept."""
    truths = inputs.truths
    videos = [inputs.dataset.videos[video_id] for video_id in inputs.video_ids]
    # Kept intervals by cells twice as wide as the tolerance: whatever is the same lies in the same cell or next to it.
    kept_in_cell: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    kept_N = np.ones(len(truths), dtype=bool)
    for index, (video, label) in enumerate(zip(truths.video_N.tolist(), truths.label_N.tolist(), strict=True)):
        fps = videos[video].fps
        span = (truths.start_N[index], truths.end_N[index])
        start, end = span if fps is None else nominal_frames_to_seconds(span, fps).tolist()
        cell = int(start // (2 * _SAME)), int(end // (2 * _SAME))
        kept_N[index] = not any(
            abs(start - other_start) <= _SAME and abs(end - other_end) <= _SAME
            for step in (-1, 0, 1)
            for side in (-1, 0, 1)
            for other_start, other_end in kept_in_cell.get((video, label, cell[0] + step, cell[1] + side), ())
        )
        if kept_N[index]:
            kept_in_cell[video, label, *cell].append((start, end))
    return kept_N
