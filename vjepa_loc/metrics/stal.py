"""Spatio-temporal localisation: as tal, over tube IoU = sum of box IoU on common frames / union of frames.

The overlap is `overlap.tube_iou`, the rest is `tal`. A tube's frames are those with a box; frames inside the truth's
interval on which it has no box (hidden) are left out on both sides.

Truth without boxes is neither found nor missed. A prediction that finds no free truth with boxes is left out, at this
threshold, when its temporal IoU with a truth of its label without boxes reaches the threshold too; such a truth
absorbs any number. A prediction without boxes is false wherever it lies. A class is scored when it has a truth with
boxes in the evaluated videos.
"""

from collections.abc import Sequence

import numpy as np

from vjepa_loc.dataset import Dataset
from vjepa_loc.events import Event
from vjepa_loc.metrics._average_precision import mean_average_precision
from vjepa_loc.metrics._result import GROCERY_VISION_THRESHOLDS, MetricResult, Thresholds
from vjepa_loc.overlap import event_spans, span_iou, tube_ious

DEFAULT_THRESHOLDS = GROCERY_VISION_THRESHOLDS


def compute(
    truth: Dataset, predictions: Sequence[Event], video_ids: Sequence[str], thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`stal/map@...` of scored events against the truth of the given videos.

    Predictions in other videos are left out and counted in the notes. Raises DatasetError for a prediction without
    a score, ConfigError for wrong thresholds, UnknownNameError for a video that is not in the dataset.
    """
    return mean_average_precision("stal", truth, predictions, video_ids, thresholds, _spatial, _has_boxes)


def _has_boxes(event: Event) -> bool:
    return event.num_boxes > 0


def _spatial(truths: Sequence[Event], predictions: Sequence[Event]) -> tuple[np.ndarray, np.ndarray]:
    """Tube IoU (P, G) with the truths that have boxes, and the best temporal IoU (P,) with those that have none."""
    iou_PG = tube_ious([event for event in truths if _has_boxes(event)], predictions).T
    excuse_P = np.full(len(predictions), -np.inf)
    boxless = [event for event in truths if not _has_boxes(event)]
    if boxless:
        excuse_P = span_iou(event_spans(predictions), event_spans(boxless)).max(axis=1)
        excuse_P[[not _has_boxes(event) for event in predictions]] = -np.inf
    return iou_PG, excuse_P
