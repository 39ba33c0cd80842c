"""From matched boxes on frames to the figures of a metric: ranked answers per label, and what was left out in words.

Shapes: D predicted boxes in the order of their ranking, G true boxes, R threshold levels, L labels, V videos.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from vjepa_loc.metrics._average_precision import RankedAnswers
from vjepa_loc.metrics._frame_boxes import FrameBoxes
from vjepa_loc.scoring_input import ScoringInput

COUNTS_ZERO, NOT_SCORED = "counts 0", "is not scored"
"""What it means for a label to have no true box."""


def answers_by_label(
    inputs: ScoringInput,
    truths: FrameBoxes,
    ranked: FrameBoxes,
    true_DR: np.ndarray,
    ignored_DR: np.ndarray | None = None,
) -> dict[str, RankedAnswers]:
    """The answers of every label of the dataset, also of one without truth."""
    num_labels, num_videos = len(inputs.labels), inputs.num_videos
    num_truths_LV = np.bincount(truths.label_N * num_videos + truths.video_N, minlength=num_labels * num_videos)
    num_truths_LV = num_truths_LV.reshape(num_labels, num_videos)
    by_label = np.argsort(ranked.label_N, kind="stable")
    ends = np.searchsorted(ranked.label_N[by_label], np.arange(num_labels + 1))
    parts = [by_label[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
    return {
        name: RankedAnswers(
            ranked.video_N[own], true_DR[own], num_truths_V, None if ignored_DR is None else ignored_DR[own]
        )
        for name, own, num_truths_V in zip(inputs.labels, parts, num_truths_LV, strict=True)
    }


def answers_with_truth(answers: dict[str, RankedAnswers], left_out: Collection[str] = ()) -> dict[str, RankedAnswers]:
    """Those of labels that have truth, without the labels `left_out`."""
    return {name: one for name, one in answers.items() if one.num_truths_V.any() and name not in left_out}


def headline(entries: Iterable[str]) -> list[str]:
    """The entry that papers compare: 0.50 where it is asked for, else the first."""
    names = list(entries)
    return ["0.50"] if "0.50" in names else names[:1]


def boxless_notes(key: str, inputs: ScoringInput) -> list[str]:
    """Notes on events without a box, which no frame metric sees."""
    tables = {"truth events": inputs.truths, "predictions": inputs.predictions}
    numbers = {what: int((table.num_boxes_N == 0).sum()) for what, table in tables.items()}
    return [f"{key}: {number} {what} have no box and do not count" for what, number in numbers.items() if number]


def label_notes(
    key: str, inputs: ScoringInput, truths: FrameBoxes, detections: FrameBoxes, effect: str, left_out: Collection[str] = ()
) -> list[str]:
    """Notes on labels without a true box: what that means for the label, and how many predicted boxes it has.

    A label without either is named only where it has an `effect` on the mean, that is where it counts 0.
    """
    num_truths_L = np.bincount(truths.label_N, minlength=len(inputs.labels))
    num_boxes_L = np.bincount(detections.label_N, minlength=len(inputs.labels))
    return [
        f"{key}: label {label!r} has no truth with boxes here and {effect}; {num_boxes} predicted boxes"
        for label, num_truths, num_boxes in zip(inputs.labels, num_truths_L, num_boxes_L, strict=True)
        if not num_truths and label not in left_out and (num_boxes or effect == COUNTS_ZERO)
    ]
