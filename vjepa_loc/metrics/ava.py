"""AVA: mean average precision of boxes on key frames, at most 50 of them on each.

Key frames of a video are those that its `extra["key_frames"]` lists; where that is missing, those that have a true
box, of any label. Boxes on other frames are left out on both sides and counted in the notes.
A detection is one box of one predicted event on one key frame; it has the box's own score, else its event's. The 50
best of a frame, over all labels, count. Among those of the 50th score it is decided as in the official tool, which
reads the file from the top and keeps a heap: the first 50 boxes of at least that score enter; better ones that come
later drive out those of the smallest label number, then y1, x1, y2, x2.
A detection looks at the truth of its label and frame that it overlaps most and at no other: the first finds it, later
ones are false. AP is the area under the precision envelope; the mean is over labels that have truth.

Boxes are continuous edges. The official files divide them by width and height, which cancels in IoU; here they are
pixels, so that exactly a half is a half. Equal scores are ranked in the order of the file (the official sort is unstable).
Where a detection overlaps two true boxes equally, the official tool takes the one that stands first in its heap, and
so does this. Source: activitynet/ActivityNet, Evaluation/get_ava_performance.py and Evaluation/ava.
"""

from __future__ import annotations

import heapq
from numbers import Integral

import numpy as np

from vjepa_loc.errors import DatasetError
from vjepa_loc.metrics._average_precision import levels_of, mean_average_precision
from vjepa_loc.metrics._event_matching import match_best_only
from vjepa_loc.metrics._frame_answers import (
    NOT_SCORED,
    answers_by_label,
    answers_with_truth,
    boxless_notes,
    headline,
    label_notes,
)
from vjepa_loc.metrics._frame_boxes import FrameBoxes, continuous_edges, frame_boxes, overlapping_pairs, places_in_runs
from vjepa_loc.metrics._result import MetricResult, Thresholds, metric_key, not_applicable, threshold_names
from vjepa_loc.scoring_input import ScoringInput

CONVENTIONS = {"": "key frames, 50 boxes each; each looks at its best truth only; VOC AP; as ActivityNet's AVA"}
DEFAULT_THRESHOLDS: Thresholds = (0.5,)
MAX_BOXES = 50
KEY_FRAMES = "key_frames"
"""Key in `Video.extra` of the frames that are scored, a list of whole frame numbers."""


def compute(inputs: ScoringInput, convention: str = "", thresholds: Thresholds = DEFAULT_THRESHOLDS) -> MetricResult:
    """`ava/map@...` of the scored events. Does not apply where no key frame has a true box.

    Raises ConfigError for wrong thresholds, DatasetError for key frames that are not whole numbers.
    """
    key = metric_key("ava", convention)
    entries = threshold_names(thresholds)
    levels_R = levels_of(entries)
    truths, detections = frame_boxes(inputs)
    if len(inputs.truths) and not len(truths):
        return not_applicable(f"none of the {len(inputs.truths)} truth events has a box")
    notes = boxless_notes(key, inputs)
    true_images = np.unique(truths.image_N)
    stated_V, frames_of = _stated_key_frames(inputs)
    kept_G = ~stated_V[truths.video_N] | _on_key_frame(truths, frames_of)
    kept_D = np.where(
        stated_V[detections.video_N], _on_key_frame(detections, frames_of), np.isin(detections.image_N, true_images)
    )
    if len(truths) and not kept_G.any():
        return not_applicable(f"none of the {len(truths)} true boxes lies on a key frame")
    if not kept_G.all():
        notes.append(f"{key}: {int((~kept_G).sum())} true boxes lie on no key frame and do not count")
    if not kept_D.all():
        unstated = (
            f" (key frames are those with a true box, where a video does not list its own under {KEY_FRAMES!r})"
            if not stated_V.all()
            else ""
        )
        notes.append(f"{key}: {int((~kept_D).sum())} predicted boxes lie on no key frame and do not count{unstated}")
    truths, detections = truths.take(kept_G), detections.take(kept_D)
    best = _most_per_image(detections)
    if len(best) < len(detections):
        notes.append(
            f"{key}: {len(detections) - len(best)} boxes beyond the {MAX_BOXES} best of their key frame do not count"
        )
    detections = detections.take(best)
    notes += label_notes(key, inputs, truths, detections, NOT_SCORED)
    truths = truths.take(_heap_order(truths))
    ranked = detections.ranked()
    pairs = overlapping_pairs(truths, ranked, continuous_edges, levels_R[0])
    true_DR = pairs.found(len(ranked), levels_R, match_best_only)
    answers = answers_with_truth(answers_by_label(inputs, truths, ranked, true_DR))
    return mean_average_precision(key, inputs, answers, entries, levels_R, headline=headline(entries), notes=notes)


def _stated_key_frames(inputs: ScoringInput) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Which videos (V,) state their key frames, and which frames those are."""
    stated_V = np.zeros(inputs.num_videos, dtype=bool)
    frames_of = {}
    for index, video_id in enumerate(inputs.video_ids):
        extra = inputs.dataset.videos[video_id].extra
        if KEY_FRAMES not in extra:
            continue
        frames = extra[KEY_FRAMES]
        if not isinstance(frames, (list, tuple)) or not all(_is_frame(frame) for frame in frames):
            raise DatasetError(
                f"video {video_id!r}, {KEY_FRAMES}: expected a list of whole frame numbers from 0, got {frames!r:.100}"
            )
        stated_V[index] = True
        frames_of[index] = np.array(frames, dtype=np.int64)
    return stated_V, frames_of


def _is_frame(value) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 0 <= value < 2**63


def _on_key_frame(boxes: FrameBoxes, frames_of: dict[int, np.ndarray]) -> np.ndarray:
    on_N = np.zeros(len(boxes), dtype=bool)
    by_video = np.argsort(boxes.video_N, kind="stable")
    for video, frames in frames_of.items():
        own = by_video[slice(*np.searchsorted(boxes.video_N[by_video], (video, video + 1)))]
        on_N[own] = np.isin(boxes.frame_N[own], frames)
    return on_N


def _most_per_image(boxes: FrameBoxes) -> np.ndarray:
    """Indices, ascending, of the boxes that the official reader keeps of each image."""
    order = np.lexsort((-boxes.score_N, boxes.image_N))
    place_N = places_in_runs(boxes.image_N[order])
    last = order[place_N == MAX_BOXES - 1]
    full = dict(zip(boxes.image_N[last].tolist(), boxes.score_N[last].tolist(), strict=True))
    if not full:
        return np.arange(len(boxes))
    images = np.sort(np.fromiter(full, dtype=np.int64))
    lowest = np.array([full[image] for image in images.tolist()])
    at = np.minimum(np.searchsorted(images, boxes.image_N), len(images) - 1)
    bound_N = np.where(images[at] == boxes.image_N, lowest[at], -np.inf)
    above = np.flatnonzero(boxes.score_N >= bound_N)
    # Of those that reach the score, the better ones stay, and of the others, if among the first 50 to come, the
    # largest by label and edges.
    by_image = above[np.argsort(boxes.image_N[above], kind="stable")]
    late = places_in_runs(boxes.image_N[by_image]) >= MAX_BOXES
    stays = by_image[~late | (boxes.score_N[by_image] > bound_N[by_image])]
    x1, y1, x2, y2 = boxes.box_N4[stays].T
    stays = stays[
        np.lexsort((-x2, -y2, -x1, -y1, -boxes.label_N[stays], -boxes.score_N[stays], boxes.image_N[stays]))
    ]
    return np.sort(stays[places_in_runs(boxes.image_N[stays]) < MAX_BOXES])


def _heap_order(truths: FrameBoxes) -> np.ndarray:
    """Indices of true boxes by image, in the order in which the official reader's heap holds them.

    Only images on which two boxes have the same label can need it; the others keep the order of the file.
    """
    by_image = np.argsort(truths.image_N, kind="stable")
    groups, count = np.unique(truths.group_N, return_counts=True)
    several = np.unique(truths.image_N[np.isin(truths.group_N, groups[count > 1])])
    chosen = by_image[np.isin(truths.image_N[by_image], several)]
    x1, y1, x2, y2 = (column.tolist() for column in truths.box_N4[chosen].T)
    heaps: dict[int, list] = {}
    for row, image, label, *edges in zip(
        chosen.tolist(), truths.image_N[chosen].tolist(), truths.label_N[chosen].tolist(), y1, x1, y2, x2, strict=True
    ):
        heapq.heappush(heaps.setdefault(image, []), (label, *edges, row))
    rows = [entry[-1] for heap in heaps.values() for entry in heap]
    return np.concatenate([by_image[~np.isin(truths.image_N[by_image], several)], np.array(rows, dtype=np.int64)])
