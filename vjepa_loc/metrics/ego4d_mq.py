"""Moment queries as Ego4D scores them: recall of the first predictions, and mean average precision.

A clip of the benchmark is a video here. Source: EGO4D/episodic-memory, MQ/Evaluation/ego4d.

`recall@0.50@1x` (get_retrieval_performance.py): of the predictions of a video and label, the first K * n **in the order
of the file** are kept, whatever their scores, n being how many truths of that label the video has. A truth is found
when one of them has IoU > threshold, strictly; one prediction may find several truths. The figure is the share of all
truths found. IoU is there the common part over the hull of both intervals, which differs from the union only in the
last bit.

`map@0.10` (eval_detection.py) is ActivityNet's as in `tal`, and `map@0.10:0.50` its mean over the five thresholds, as
its configuration writes them (not linspace's). The official tool reads two files, one of retrieved and one of detected
moments; here both come from one, so its order should be by score: the notes count predictions that follow one of lower
score. The tool stops with an error at a video without predictions, whose truths are missed here; predictions of a label
without truth are left out and counted.

By default recall stands at 0.3, 0.5 and 0.7, and precision at 0.1 to 0.5 with their mean, as there; other thresholds
hold for both.
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.metrics._average_precision import levels_of
from vjepa_loc.metrics._recall import recall_of_first
from vjepa_loc.metrics._result import MetricResult, Thresholds, metric_key, steps, threshold_names, together
from vjepa_loc.metrics._span_pairs import best_of_first, num_out_of_order, span_pairs, span_precision
from vjepa_loc.scoring_input import ScoringInput

CONVENTIONS = {
    "": "share of truths that the first K times as many predictions find (IoU above the threshold), and mAP; as Ego4D MQ"
}
_RECALL_THRESHOLDS: Thresholds = (0.3, 0.5, 0.7)
_PRECISION_THRESHOLDS: Thresholds = (0.1, 0.2, 0.3, 0.4, 0.5, steps(0.1, 0.1, 0.5))
DEFAULT_THRESHOLDS: Thresholds = (*_PRECISION_THRESHOLDS, 0.7)

MULTIPLES = (1, 2, 3, 4, 5)


def compute(
    inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`ego4d_mq/recall@...@Kx` and `ego4d_mq/map@...` of the scored events. Raises ConfigError for wrong thresholds."""
    key = metric_key("ego4d_mq", convention)
    asked = threshold_names(thresholds)
    own = asked == threshold_names(DEFAULT_THRESHOLDS)
    of_recall = threshold_names(_RECALL_THRESHOLDS) if own else asked
    of_precision = threshold_names(_PRECISION_THRESHOLDS) if own else asked

    in_file_order = np.arange(len(inputs.predictions))
    retrieved = span_pairs(inputs, levels_of(of_recall)[0], _hull_iou)
    best_MF = best_of_first(inputs, retrieved, in_file_order, MULTIPLES)
    names = {(entry, multiple): f"{key}/recall@{entry}@{multiple}x" for entry in of_recall for multiple in MULTIPLES}
    single = "0.50" if "0.50" in of_recall else next(iter(of_recall))
    recall = recall_of_first(
        inputs, names, of_recall, best_MF, MULTIPLES, over_labels=False, strict=True, headline=[names[single, 1]]
    )
    mean = "0.10:0.50" if "0.10:0.50" in of_precision else next(iter(of_precision))
    detected = span_pairs(inputs, levels_of(of_precision)[0])
    notes = []
    if unsorted := num_out_of_order(inputs):
        notes.append(
            f"{key}: {unsorted} predictions follow one of lower score of their video and label; recall@Kx takes the first "
            "of the file, not the best"
        )
    return together(recall, span_precision(key, inputs, of_precision, detected, headline=[mean]), notes=notes)


def _hull_iou(a_K2: np.ndarray, b_K2: np.ndarray) -> np.ndarray:
    """The common part of intervals as a share of the stretch from the earlier start to the later end, (K,)."""
    common_K = np.minimum(a_K2[:, 1], b_K2[:, 1]) - np.maximum(a_K2[:, 0], b_K2[:, 0])
    hull_K = np.maximum(a_K2[:, 1], b_K2[:, 1]) - np.minimum(a_K2[:, 0], b_K2[:, 0])
    return np.maximum(common_K, 0.0) / hull_K
