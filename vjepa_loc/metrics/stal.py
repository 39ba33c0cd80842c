"""Spatio-temporal localisation: as tal, over tube IoU = sum of box IoU on common frames / union of frames.

The overlap is `overlap.tube_iou`, the rest is `tal`. A tube's frames are those with a box; frames inside the truth's
interval on which it has no box (hidden) are left out on both sides.

Truth without boxes is neither found nor missed. A prediction that finds no free truth with boxes is left out, at this
threshold, when its temporal IoU with a truth of its label without boxes reaches the threshold too; such a truth
absorbs any number. A prediction without boxes is false wherever it lies. A class is scored when it has a truth with
boxes in the evaluated videos.
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.metrics._average_precision import levels_of, mean_average_precision
from vjepa_loc.metrics._event_matching import rank_and_match
from vjepa_loc.scoring_input import ScoringInput
from vjepa_loc.metrics._result import GROCERY_VISION_THRESHOLDS, MetricResult, Thresholds, not_applicable, threshold_names
from vjepa_loc.overlap import span_iou, tube_ious

CONVENTIONS = {"": "tube IoU = sum of box IoU on common frames / union of frames; matched as tal"}
DEFAULT_THRESHOLDS = GROCERY_VISION_THRESHOLDS


def compute(
    inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS, key: str = "stal"
) -> MetricResult:
    """`stal/map@...` of the scored events. Does not apply where no truth has a box. Raises ConfigError for wrong thresholds."""
    entries = threshold_names(thresholds)
    levels_R = levels_of(entries)
    truths, predictions = inputs.truths, inputs.predictions
    boxed_N = truths.num_boxes_N > 0
    if len(truths) and not boxed_N.any():
        return not_applicable(f"none of the {len(truths)} truth events has a box")
    truth_spans, spans, has_boxes_N = truths.spans_N2, predictions.spans_N2, predictions.num_boxes_N > 0

    def similarities(rows: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        boxed, boxless = own[boxed_N[own]], own[~boxed_N[own]]
        iou_GP = tube_ious([truths.events[at] for at in boxed], [predictions.events[at] for at in rows])
        if not len(boxless):
            return iou_GP.T, None
        excuse_P = span_iou(spans[rows], truth_spans[boxless]).max(axis=1)
        return iou_GP.T, np.where(has_boxes_N[rows], excuse_P, -np.inf)

    answers, notes = {}, []
    for label, name in enumerate(inputs.labels):
        own = truths.label_N == label
        if (own & boxed_N).any():
            answers[name] = rank_and_match(inputs, label, boxed_N, levels_R, similarities)
        elif own.any() or (predictions.label_N == label).any():
            what = f"{int(own.sum())} truth events without boxes" if own.any() else "no truth"
            num_predictions = int((predictions.label_N == label).sum())
            notes.append(
                f"{key}: label {name!r} has {what} here and is not scored; {num_predictions} predictions are not counted"
            )
    return mean_average_precision(key, inputs, answers, entries, levels_R, notes=notes)
