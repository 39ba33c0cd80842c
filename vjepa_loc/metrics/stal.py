"""Spatio-temporal localisation: as tal, over tube IoU = sum of box IoU on common frames / union of frames.

This is `tube_map[viou]` with two more rules. A tube's frames are those with a box; frames inside the truth's interval on
which it has no box (hidden) are left out on both sides.

Truth without boxes is neither found nor missed. A prediction that finds no free truth with boxes is left out, at this
threshold, when its temporal IoU with a truth of its label without boxes reaches the threshold too; such a truth
absorbs any number. A prediction without boxes is false wherever it lies. A class is scored when it has a truth with
boxes in the evaluated videos.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from vjepa_loc.metrics._average_precision import levels_of, mean_average_precision
from vjepa_loc.metrics._event_matching import answers_of_labels, found_by_order, ranked
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._result import GROCERY_VISION_THRESHOLDS, MetricResult, Thresholds, not_applicable, threshold_names
from vjepa_loc.metrics._tube_overlap import Tubes, exact_on_paper, pairs_in_time, similar_pairs, sums_on_common_frames
from vjepa_loc.overlap import paired_box_iou, paired_span_iou
from vjepa_loc.scoring_input import EventTable, ScoringInput

CONVENTIONS = {"": "tube IoU = sum of box IoU on common frames / union of frames; matched as tal"}
DEFAULT_THRESHOLDS = GROCERY_VISION_THRESHOLDS


def compute(
    inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> MetricResult:
    """`stal/map@...` of the scored events. Does not apply where no truth has a box. Raises ConfigError for wrong thresholds."""
    entries = threshold_names(thresholds)
    levels_R = levels_of(entries)
    truths, predictions = inputs.truths, inputs.predictions
    boxed_N = truths.num_boxes_N > 0
    if len(truths) and not boxed_N.any():
        return not_applicable(f"none of the {len(truths)} truth events has a box")
    tubes, truth_tubes = (Tubes.of(table, len(inputs.labels)) for table in (predictions, truths))
    similarity = partial(seen_viou, covered_frames(truths))
    pairs = similar_pairs(tubes, truth_tubes, similarity, float(levels_R[0]))
    order_N = ranked(predictions.score_N)
    found_NR = found_by_order(order_N, *pairs, levels_R, partial(match_pairs, last_of_equals=True))
    ignored_NR = None
    if not boxed_N.all():
        ignored_NR = ~found_NR & (_excuses(inputs, tubes, truth_tubes)[:, None] >= levels_R)
    labels, notes = [], []
    for label, name in enumerate(inputs.labels):
        own = truths.label_N == label
        if (own & boxed_N).any():
            labels.append(label)
        elif own.any() or (predictions.label_N == label).any():
            what = f"{int(own.sum())} truth events without boxes" if own.any() else "no truth"
            num_predictions = int((predictions.label_N == label).sum())
            notes.append(
                f"stal: label {name!r} has {what} here and is not scored; {num_predictions} predictions are not counted"
            )
    answers = answers_of_labels(inputs, labels, order_N, found_NR, boxed_N, ignored_NR)
    return mean_average_precision("stal", inputs, answers, entries, levels_R, notes=notes)


def covered_frames(table: EventTable) -> np.ndarray:
    """The whole frames that each event covers, half-open, (N, 2): `Event.covered_frames` of all."""
    return np.ceil(table.spans_N2 - 0.5).astype(np.int64)


def seen_viou(covered_G2: np.ndarray, tubes: Tubes, truths: Tubes, tube_K: np.ndarray, truth_K: np.ndarray) -> np.ndarray:
    """Tube IoU (K,) with frames left out that the truth covers (`covered_G2`) without a box; truths
    have boxes. After VidSTG's vIoU (antoyang/TubeDETR, datasets/vidstg_eval.py), with hidden frames added."""
    sum_K, _ = sums_on_common_frames(tubes, truths, tube_K, truth_K, paired_box_iou)
    inside_K = tubes.boxes_before(tube_K, covered_G2[truth_K, 1]) - tubes.boxes_before(tube_K, covered_G2[truth_K, 0])
    # A truth's boxes lie on frames it covers, so the union is its boxes and what the prediction has outside.
    return exact_on_paper(sum_K / (truths.num_boxes_N[truth_K] + tubes.num_boxes_N[tube_K] - inside_K))


def _excuses(inputs: ScoringInput, tubes: Tubes, truth_tubes: Tubes) -> np.ndarray:
    """The largest temporal IoU (N,) of each prediction with boxes and a truth without, 0 where there is none."""
    excuse_N = np.zeros(len(inputs.predictions))
    bare, boxed = np.flatnonzero(truth_tubes.num_boxes_N == 0), tubes.with_boxes
    spans_M2, spans_N2 = inputs.truths.spans_N2[bare], inputs.predictions.spans_N2[boxed]
    groups = tubes.group_N[boxed], truth_tubes.group_N[bare]
    for at_N, at_M in pairs_in_time(groups[0], *spans_N2.T, groups[1], *spans_M2.T):
        np.maximum.at(excuse_N, boxed[at_N], paired_span_iou(spans_N2[at_N], spans_M2[at_M]))
    return excuse_N
