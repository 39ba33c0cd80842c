"""Temporal localisation by the ActivityNet protocol: mean average precision over the IoU of half-open intervals.

Per class, predictions are taken by descending score, ties in the order of the file. Each tries the truths of its
video and label in descending temporal IoU and takes the first free one with IoU >= threshold, else it is false.
Intervals are half-open, in frames. AP is the area under the interpolated precision envelope; the figure is the mean
over classes, then over thresholds. Source: activitynet/ActivityNet, Evaluation/eval_detection.py.

The classes are, as there, those of the dataset that have truth in the evaluated videos; one without predictions
counts 0. The official script stops with an error at a class without predictions and at a predicted label without
truth; here the latter are left out and counted in the notes. Among equal scores the official order is that of an
unstable sort, reversed; here it is the file's.
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.metrics._average_precision import levels_of, mean_average_precision, unscored_notes
from vjepa_loc.metrics._event_matching import rank_and_match
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.metrics._result import GROCERY_VISION_THRESHOLDS, MetricResult, Thresholds, metric_key, threshold_names
from vjepa_loc.overlap import span_iou

CONVENTIONS = {"": "temporal IoU of half-open intervals; each prediction takes the best free truth; as ActivityNet"}
DEFAULT_THRESHOLDS = GROCERY_VISION_THRESHOLDS


def compute(
    inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`tal/map@...` of the scored events. Raises ConfigError for wrong thresholds."""
    key = metric_key("tal", convention)
    entries = threshold_names(thresholds)
    levels_R = levels_of(entries)
    truth_spans, spans = inputs.truths.spans_N2, inputs.predictions.spans_N2
    everything = np.ones(len(inputs.truths), dtype=bool)
    answers = {
        name: rank_and_match(
            inputs, label, everything, levels_R, lambda rows, own: (span_iou(spans[rows], truth_spans[own]), None)
        )
        for label, name in enumerate(inputs.labels)
        if (inputs.truths.label_N == label).any()
    }
    return mean_average_precision(key, inputs, answers, entries, levels_R, notes=unscored_notes(key, inputs))
