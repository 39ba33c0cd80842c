"""COCO's detection protocol over frames: which boxes are looked at, which are ignored, and its figures by size.

Source: cocodataset/cocoapi, PythonAPI/pycocotools/cocoeval.py. Shapes as in `_frame_boxes`.
"""

from __future__ import annotations

import numpy as np

from vjepa_loc.metrics._average_precision import coco_curve, levels_of, mean_average_precision
from vjepa_loc.metrics._frame_answers import answers_by_label, answers_with_truth
from vjepa_loc.metrics._frame_boxes import FrameBoxes, Pairs, overlapping_pairs, sized_edges
from vjepa_loc.metrics._free_truths import match_pairs
from vjepa_loc.metrics._result import MetricResult, linearly_spaced
from vjepa_loc.scoring_input import ScoringInput

MAX_DETECTIONS = (1, 10, 100)
_LARGEST = 1e5**2
AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, _LARGEST)}
"""Square pixels, both ends included."""
_ALL_AREAS = (0.0, _LARGEST)
_NEARLY_ONE = 1 - 1e-10
"""The most that is asked of an overlap, so that equal boxes reach the threshold 1."""

BY_SIZE = "0.50:0.95"
"""The entry of thresholds for which the parts by size and the recalls are given."""


def compute(
    key: str,
    inputs: ScoringInput,
    truths: FrameBoxes,
    detections: FrameBoxes,
    entries: dict[str, tuple[float, ...]],
    notes: list[str],
) -> MetricResult:
    """Figures at `entries`, as `threshold_names` gives them; parts by size and recalls where `BY_SIZE` is among them."""
    entries = {name: linearly_spaced(values) for name, values in entries.items()}
    levels_R = levels_of(entries)
    ranked = detections.take(np.lexsort((detections.image_N, -detections.score_N)))
    place_D = ranked.place_in_group()
    num_over = int((place_D >= MAX_DETECTIONS[-1]).sum())
    if num_over:
        notes = [*notes, f"{key}: {num_over} boxes beyond the {MAX_DETECTIONS[-1]} best of their label and frame do not count"]
    ranked, place_D = ranked.take(place_D < MAX_DETECTIONS[-1]), place_D[place_D < MAX_DETECTIONS[-1]]
    pairs = overlapping_pairs(truths, ranked, sized_edges, min(levels_R[0], _NEARLY_ONE))

    def matched(area, chosen):
        counted_G, true_DR, ignored_DR = _match(pairs, truths, ranked, area, levels_of(chosen))
        return truths.take(counted_G), true_DR, ignored_DR

    def precisions(counted, true_DR, ignored_DR, chosen, quantity, **more) -> MetricResult:
        answers = answers_with_truth(answers_by_label(inputs, counted, ranked, true_DR, ignored_DR))
        return mean_average_precision(key, inputs, answers, chosen, levels_of(chosen), coco_curve, quantity, **more)

    counted, true_DR, ignored_DR = matched(_ALL_AREAS, entries)
    asked = [name for name in ("0.50", BY_SIZE) if name in entries] or list(entries)[:1]
    result = precisions(counted, true_DR, ignored_DR, entries, "map", headline=asked, notes=notes)
    if BY_SIZE not in entries:
        return result
    chosen = {BY_SIZE: entries[BY_SIZE]}
    columns = np.searchsorted(levels_R, entries[BY_SIZE])
    for most in MAX_DETECTIONS:
        first_DR = true_DR[:, columns] & (place_D < most)[:, None]
        _add(result, *_recalls(f"{key}/recall@{BY_SIZE}@{most}", inputs, counted, ranked, first_DR))
    for size, area in AREAS.items():
        counted, true_DR, ignored_DR = matched(area, chosen)
        if not len(counted):
            result.notes.append(f"{key}: no truth is {size}, so there is no map_{size} and no recall_{size}")
            continue
        part = precisions(counted, true_DR, ignored_DR, chosen, f"map_{size}", headline=())
        _add(result, part.values, part.per_class)
        name = f"{key}/recall_{size}@{BY_SIZE}@{MAX_DETECTIONS[-1]}"
        _add(result, *_recalls(name, inputs, counted, ranked, true_DR))
    return result


def _match(pairs: Pairs, truths: FrameBoxes, ranked: FrameBoxes, area: tuple[float, float], levels_R: np.ndarray):
    """The truths of an area (G,), who finds one of them (D, R), and who counts neither way (D, R).

    Truths of other sizes are ignored: they are only taken, each once, where no free truth of the area is reached, and
    who takes one does not count; nor does who finds nothing and is of another size itself.
    """
    low, high = area
    truth_area_G, area_D = sized_edges(truths.box_N4).area_N, sized_edges(ranked.box_N4).area_N
    counted_G = (truth_area_G >= low) & (truth_area_G <= high)
    levels_R = np.minimum(levels_R, _NEARLY_ONE)
    true_DR = pairs.take(counted_G[pairs.truth_P]).found(len(ranked), levels_R, _last_of_equals)
    ignored_DR = ~true_DR & ((area_D < low) | (area_D > high))[:, None]
    others = pairs.take(~counted_G[pairs.truth_P])
    if len(others.iou_P):
        for column, level in enumerate(levels_R):
            left = others.take(~true_DR[others.detection_P, column])
            ignored_DR[:, column] |= left.found(len(ranked), [level], _last_of_equals)[:, 0]
    return counted_G, true_DR, ignored_DR if ignored_DR.any() else None


def _last_of_equals(prediction_K, truth_K, similarity_K, thresholds_R) -> np.ndarray:
    return match_pairs(prediction_K, truth_K, similarity_K, thresholds_R, last_of_equals=True)


def _recalls(name: str, inputs, counted: FrameBoxes, ranked: FrameBoxes, true_DR: np.ndarray):
    """The part of the truth that is found, the mean over levels: for the mean over labels, and per label."""
    num_truths_L = np.bincount(counted.label_N, minlength=len(inputs.labels))
    found_L = np.bincount(ranked.label_N, weights=true_DR.mean(axis=1), minlength=len(inputs.labels))
    known = np.flatnonzero(num_truths_L)
    recalls = found_L[known] / num_truths_L[known]
    value = float(recalls.mean()) if len(known) else 0.0
    return {name: value}, {inputs.labels[at]: {name: float(one)} for at, one in zip(known, recalls, strict=True)}


def _add(result: MetricResult, values, per_class) -> None:
    result.values.update(values)
    for label, figures in per_class.items():
        result.per_class.setdefault(label, {}).update(figures)
