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

from collections.abc import Sequence

import numpy as np

from vjepa_loc.dataset import Dataset
from vjepa_loc.events import Event
from vjepa_loc.metrics._average_precision import mean_average_precision
from vjepa_loc.metrics._result import GROCERY_VISION_THRESHOLDS, MetricResult, Thresholds
from vjepa_loc.overlap import event_spans, span_iou

DEFAULT_THRESHOLDS = GROCERY_VISION_THRESHOLDS


def compute(
    truth: Dataset, predictions: Sequence[Event], video_ids: Sequence[str], thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`tal/map@...` of scored events against the truth of the given videos.

    Predictions in other videos are left out and counted in the notes. Raises DatasetError for a prediction without
    a score, ConfigError for wrong thresholds, UnknownNameError for a video that is not in the dataset.
    """
    return mean_average_precision("tal", truth, predictions, video_ids, thresholds, _temporal, lambda event: True)


def _temporal(truths: Sequence[Event], predictions: Sequence[Event]) -> tuple[np.ndarray, np.ndarray]:
    """Temporal IoU (P, G); nothing excuses a false prediction."""
    return span_iou(event_spans(predictions), event_spans(truths)), np.full(len(predictions), -np.inf)
