"""Boxes of truth and predictions on single frames, which of them overlap, and which find each other.

Shapes: N boxes of either side, D predicted boxes in the order of their ranking, G true boxes, P pairs of the two,
R threshold levels, V videos.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vjepa_loc.metrics._event_matching import Match, found_by_order
from vjepa_loc.scoring_input import EventTable, ScoringInput

# Pairs that are looked at together, so that memory stays small however many boxes one frame has.
_CHUNK = 1_000_000


@dataclass(frozen=True, eq=False)
class FrameBoxes:
    """Boxes as columns, in file order: events in the order of their file, frames ascending within an event.

    `image_N` numbers the frames of all videos, in the order of the dataset's videos and then of the frames;
    `group_N` the labels on them. Truth has NaN for a score.
    """

    video_N: np.ndarray
    label_N: np.ndarray
    frame_N: np.ndarray
    image_N: np.ndarray
    group_N: np.ndarray
    score_N: np.ndarray
    box_N4: np.ndarray

    def __len__(self) -> int:
        return len(self.video_N)

    def take(self, chosen_N: np.ndarray) -> FrameBoxes:
        """The boxes that a mask (N,) or indices choose, in that order."""
        return FrameBoxes(*(getattr(self, name)[chosen_N] for name in self.__dataclass_fields__))

    def ranked(self) -> FrameBoxes:
        """By descending score, ties in file order."""
        return self.take(np.argsort(-self.score_N, kind="stable"))

    def place_in_group(self) -> np.ndarray:
        """How many boxes of the same label and image stand before each, (N,)."""
        order = np.argsort(self.group_N, kind="stable")
        place_N = np.empty(len(self), dtype=np.int64)
        place_N[order] = places_in_runs(self.group_N[order])
        return place_N


def frame_boxes(inputs: ScoringInput) -> tuple[FrameBoxes, FrameBoxes]:
    """The boxes of the truths and of the predictions."""
    tables = inputs.truths, inputs.predictions
    frames = np.unique(np.concatenate([table.frame_B for table in tables]))
    places = {video_id: place for place, video_id in enumerate(inputs.dataset.videos)}
    place_V = np.array([places[video_id] for video_id in inputs.video_ids], dtype=np.int64)

    def columns(table: EventTable) -> FrameBoxes:
        video_N, label_N = table.video_N[table.owner_B], table.label_N[table.owner_B]
        image_N = place_V[video_N] * len(frames) + np.searchsorted(frames, table.frame_B)
        group_N = label_N * (len(places) * len(frames)) + image_N
        return FrameBoxes(video_N, label_N, table.frame_B, image_N, group_N, table.box_score_B, table.box_B4)

    return columns(tables[0]), columns(tables[1])


@dataclass(frozen=True, eq=False)
class Edges:
    """What a convention makes of boxes: it overlaps two of them by `min(high) - max(low) + extra` in x and y."""

    low_N2: np.ndarray
    high_N2: np.ndarray
    area_N: np.ndarray
    extra: float = 0.0


# The sums below are written in the order in which the official tools add, so that exact ties fall as there.


def continuous_edges(box_N4: np.ndarray) -> Edges:
    """Edges as they are."""
    return Edges(box_N4[:, :2], box_N4[:, 2:], (box_N4[:, 2:] - box_N4[:, :2]).prod(axis=1))


def sized_edges(box_N4: np.ndarray) -> Edges:
    """From x, y, width and height, as COCO's files have them."""
    size_N2 = box_N4[:, 2:] - box_N4[:, :2]
    return Edges(box_N4[:, :2], size_N2 + box_N4[:, :2], size_N2.prod(axis=1))


def inclusive_edges(box_N4: np.ndarray) -> Edges:
    """First and last pixel, as ACT has them: sizes are their difference + 1."""
    last_N2 = box_N4[:, 2:] - 1
    return Edges(box_N4[:, :2], last_N2 + 1, (last_N2 - box_N4[:, :2] + 1).prod(axis=1))


def touching_edges(box_N4: np.ndarray) -> Edges:
    """First and last pixel, as VOC's tool has them: boxes overlap when neither begins after the other's last pixel."""
    last_N2 = box_N4[:, 2:] - 1
    return Edges(box_N4[:, :2], last_N2, (last_N2 - box_N4[:, :2] + 1).prod(axis=1), 1.0)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Predicted and true boxes of one label and image that overlap enough, by prediction."""

    detection_P: np.ndarray
    truth_P: np.ndarray
    iou_P: np.ndarray

    def take(self, chosen_P: np.ndarray) -> Pairs:
        return Pairs(self.detection_P[chosen_P], self.truth_P[chosen_P], self.iou_P[chosen_P])

    def found(self, num_detections: int, levels_R: np.ndarray, match: Match) -> np.ndarray:
        """Which predictions find a truth, (D, R), when `match` lets them choose in the order of their ranking."""
        return found_by_order(
            np.arange(num_detections), self.detection_P, self.truth_P, self.iou_P, np.asarray(levels_R), match
        )


def overlapping_pairs(
    truths: FrameBoxes, detections: FrameBoxes, edges: Callable[[np.ndarray], Edges], lowest: float
) -> Pairs:
    """All pairs of one label and image with IoU >= `lowest`."""
    by_group = np.argsort(truths.group_N, kind="stable")
    groups = truths.group_N[by_group]
    first_D = np.searchsorted(groups, detections.group_N, side="left")
    count_D = np.searchsorted(groups, detections.group_N, side="right") - first_D
    before_D = np.cumsum(count_D) - count_D
    true_edges, edges_D = edges(truths.box_N4), edges(detections.box_N4)
    num_pairs = int(count_D.sum())
    cuts = np.unique(np.searchsorted(before_D, np.arange(0, num_pairs + _CHUNK, _CHUNK), side="left"))
    parts = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))]
    for start, stop in zip(cuts[:-1], cuts[1:], strict=True):
        detection_P = np.repeat(np.arange(start, stop), count_D[start:stop])
        truth_P = np.arange(len(detection_P)) - np.repeat(before_D[start:stop] - before_D[start], count_D[start:stop])
        truth_P = by_group[truth_P + first_D[detection_P]]
        iou_P = _iou(true_edges, truth_P, edges_D, detection_P)
        enough_P = iou_P >= lowest
        parts.append((detection_P[enough_P], truth_P[enough_P], iou_P[enough_P]))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _iou(a: Edges, at_a: np.ndarray, b: Edges, at_b: np.ndarray) -> np.ndarray:
    intersection = np.ones(len(at_a))
    for axis in (0, 1):
        size = np.minimum(a.high_N2[at_a, axis], b.high_N2[at_b, axis]) - np.maximum(
            a.low_N2[at_a, axis], b.low_N2[at_b, axis]
        )
        if a.extra:
            apart = (a.low_N2[at_a, axis] > b.high_N2[at_b, axis]) | (b.low_N2[at_b, axis] > a.high_N2[at_a, axis])
            size = np.where(apart, 0.0, size + a.extra)
        intersection *= np.maximum(size, 0.0)
    return intersection / (a.area_N[at_a] + b.area_N[at_b] - intersection)


def places_in_runs(value_N: np.ndarray) -> np.ndarray:
    """The place (N,) of each element in its run of equal values: [5, 5, 7, 5] gives [0, 1, 0, 0]."""
    starts = np.flatnonzero(np.diff(value_N, prepend=value_N[:1] - 1))
    return np.arange(len(value_N)) - np.repeat(starts, np.diff(starts, append=len(value_N)))
