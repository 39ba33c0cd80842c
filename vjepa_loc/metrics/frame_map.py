"""Mean average precision of boxes on single frames, in four conventions.

A detection is one box of one predicted event on one frame; it has the box's own score, else its event's, and its
event's label. Ties keep the order of the file: events as they stand there, frames ascending within an event. A box
may only find a true box of the same label on the same frame of the same video.

- `act`: first and last pixels (x2 - 1, y2 - 1; sizes + 1). A detection takes the truth it overlaps most of those that
  are still free. AP is the area under straight lines from precision 1 at recall 0. The mean is over all labels of the
  dataset, those without truth count 0 (the official script stops at one that is predicted).
  Source: MCG-NJU/MOC-Detector, src/ACT.py, frameAP.
- `multisports`: continuous edges. A detection looks at the truth it overlaps most and at no other: the first finds it,
  later ones are false. AP under the precision envelope; labels without truth are left out, and so are the six of
  MultiSports that its script names. Source: MCG-NJU/MultiSports, evaluate_multisports.py, frameAP.
- `voc`: as `multisports`, with first and last pixels; boxes that share less than a whole pixel in x or y do not overlap.
  Source: wei-tim/YOWO, evaluation_ucf24_jhmdb (Object-Detection-Metrics, all-point AP).
- `coco`: continuous edges. The 100 best of a label on a frame count, and each takes the truth it overlaps most of
  those that are still free (ties: the last in the file). AP is the mean of the precision envelope at 101 recalls. Ties
  between frames are in the order of the videos in the dataset and of their frames, as images are there. Beside the
  mean over 0.50:0.95 come its parts by size (small up to 32^2 pixels, medium, large from 96^2) and the recall with the
  1, 10 and 100 best of a label on each frame (by size: 100). Source: cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py.

The means over thresholds are of `start + step * i` in `act` and `multisports` and of numpy's linspace in `coco`, so
that overlaps exactly on a threshold fall as in the official tools.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vjepa_loc.metrics import _coco
from vjepa_loc.metrics._average_precision import (
    Curve,
    envelope_curve,
    levels_of,
    mean_average_precision,
    trapezoid_curve,
)
from vjepa_loc.metrics._event_matching import Match, match_best_only
from vjepa_loc.metrics._frame_answers import (
    COUNTS_ZERO,
    NOT_SCORED,
    answers_by_label,
    answers_with_truth,
    boxless_notes,
    headline,
    label_notes,
)
from vjepa_loc.metrics._frame_boxes import (
    Edges,
    continuous_edges,
    frame_boxes,
    inclusive_edges,
    overlapping_pairs,
    touching_edges,
)
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._multisports import unscored_labels
from vjepa_loc.metrics._result import (
    MetricResult,
    Thresholds,
    added_up,
    metric_key,
    not_applicable,
    steps,
    threshold_names,
)
from vjepa_loc.scoring_input import ScoringInput

CONVENTIONS = {
    "act": "boxes of pixels + 1; each takes the best free truth; trapezoid AP; mean over all labels; as MOC-Detector",
    "multisports": "continuous boxes; each looks at its best truth only; VOC AP; as MultiSports",
    "voc": "boxes of pixels + 1; each looks at its best truth only; all-point AP; as YOWO",
    "coco": "continuous boxes, 100 per frame and label; each takes the best free truth; 101-point AP; as pycocotools",
}
DEFAULT_THRESHOLDS: Thresholds = (0.5, 0.75, steps(0.5, 0.05, 0.95))


@dataclass(frozen=True)
class _Rules:
    """What distinguishes the conventions but `coco`."""

    edges: Callable[[np.ndarray], Edges]
    match: Match
    curve: Curve
    spacing: Callable[[tuple[float, ...]], tuple[float, ...]]
    classes_without_truth: str


_RULES = {
    "act": _Rules(inclusive_edges, match_pairs, trapezoid_curve, added_up, "zero"),
    "multisports": _Rules(continuous_edges, match_best_only, envelope_curve, added_up, "skip"),
    "voc": _Rules(touching_edges, match_best_only, envelope_curve, tuple, "skip"),
}


def compute(inputs: ScoringInput, convention: str, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> MetricResult:
    """`frame_map[<convention>]/map@...`. Does not apply where no truth has a box. Raises ConfigError for wrong thresholds.

    `coco` adds `map_<size>`, `recall` and `recall_<size>` where 0.50:0.95 is among the thresholds.
    """
    key = metric_key("frame_map", convention)
    entries = threshold_names(thresholds)
    truths, detections = frame_boxes(inputs)
    if len(inputs.truths) and not len(truths):
        return not_applicable(f"none of the {len(inputs.truths)} truth events has a box")
    notes = boxless_notes(key, inputs)
    if convention == "coco":
        notes += label_notes(key, inputs, truths, detections, NOT_SCORED)
        return _coco.compute(key, inputs, truths, detections, entries, notes)
    rules = _RULES[convention]
    entries = {name: rules.spacing(values) for name, values in entries.items()}
    left_out = unscored_labels(inputs.labels) if convention == "multisports" else ()
    if left_out:
        notes.append(f"{key}: as in its official tool, these labels are not scored: {', '.join(left_out)}")
    effect = COUNTS_ZERO if rules.classes_without_truth == "zero" else NOT_SCORED
    notes += label_notes(key, inputs, truths, detections, effect, left_out)
    levels_R = levels_of(entries)
    ranked = detections.ranked()
    pairs = overlapping_pairs(truths, ranked, rules.edges, levels_R[0])
    true_DR = pairs.found(len(ranked), levels_R, rules.match)
    answers = answers_by_label(inputs, truths, ranked, true_DR)
    if rules.classes_without_truth == "skip":
        answers = answers_with_truth(answers, left_out)
    return mean_average_precision(
        key,
        inputs,
        answers,
        entries,
        levels_R,
        rules.curve,
        headline=headline(entries),
        classes_without_truth=rules.classes_without_truth,
        notes=notes,
    )

