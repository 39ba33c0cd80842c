"""The errors that cost most, one by one, so that somebody can go and look at them.

Rows are dictionaries from the name of a column to its value. "Overlap" is what the explained metric compares.
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.diagnosis_errors import FOUND, KINDS, Findings
from vjepa_loc.scoring_input import EventTable, ScoringInput

NUM_SHOWN = 10


def costly_false_positives(inputs: ScoringInput, found: Findings) -> list[dict]:
    """The false positives of the highest score, with the truth that each is nearest to."""
    false = found.ranked_P[found.kind_P[found.ranked_P] >= 0][:NUM_SHOWN].tolist()
    rows = []
    for at in false:
        truth = int(found.truth_P[at])
        rows.append(
            _where(inputs, inputs.predictions, at)
            | {"score": float(inputs.predictions.score_N[at]), "kind": KINDS[found.kind_P[at]]}
            | _other(inputs, inputs.truths, truth, "nearest truth")
            | _overlaps(found, truth, found.overlap_P[at], found.time_iou_P[at])
        )
    return rows


def costly_missed(inputs: ScoringInput, found: Findings) -> list[dict]:
    """The missed truths on which most of the mAP hangs, those of labels with few truths; the longest of them first."""
    truths = inputs.truths
    num_truths_L = np.bincount(truths.label_N[found.scored_G], minlength=len(inputs.labels))
    num_labels = np.count_nonzero(num_truths_L)
    missed = np.flatnonzero(found.missed_G)
    length = truths.end_N[missed] - truths.start_N[missed]
    rows = []
    for at in missed[np.lexsort((-length, num_truths_L[truths.label_N[missed]]))][:NUM_SHOWN].tolist():
        nearest = int(found.nearest_G[at])
        rows.append(
            _where(inputs, truths, at)
            | {"mAP that hangs on it": 1 / float(num_truths_L[truths.label_N[at]] * num_labels)}
            | _other(inputs, inputs.predictions, nearest, "nearest prediction")
            | {"it is": _kind_text(found, nearest, at)}
            | _overlaps(found, nearest, found.nearest_overlap_G[at], found.nearest_time_iou_G[at])
        )
    return rows


def _kind_text(found: Findings, prediction: int, truth: int) -> str:
    """What a prediction that is near a missed truth is; its kind was given with respect to the truth it is nearest to."""
    if prediction < 0:
        return "none near"
    kind = "true" if found.kind_P[prediction] == FOUND else KINDS[found.kind_P[prediction]]
    return kind if found.truth_P[prediction] in (truth, -1) else f"{kind}, of another truth"


def _where(inputs: ScoringInput, table: EventTable, at: int) -> dict:
    return {
        "video": inputs.video_ids[table.video_N[at]],
        "label": inputs.labels[table.label_N[at]],
        "start": _frame(table.start_N[at]),
        "end": _frame(table.end_N[at]),
    }


def _other(inputs: ScoringInput, table: EventTable, at: int, name: str) -> dict:
    if at < 0:
        return {name: None, "its start": None, "its end": None}
    place = _where(inputs, table, at)
    return {name: place["label"], "its start": place["start"], "its end": place["end"]}


def _overlaps(found: Findings, other: int, overlap: float, time_iou: float) -> dict:
    known = other >= 0
    temporal = {"temporal IoU": float(time_iou) if known else None}
    return temporal | ({"tube IoU": float(overlap) if known else None} if found.metric == "stal" else {})


def _frame(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)
