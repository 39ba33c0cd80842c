"""What a truth is like: its length, box size, overlap with other events and distance to a clip seam, in bins.

The bins are the same for every data set, so that reports can be compared; those without truths are not shown. A bin
holds its lower edge and not its upper one. Shapes: G truths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vjepa_loc.scoring_input import ScoringInput

LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Frames, doubling: most data sets spread over three to five of these bins."""

SIDES = (32, 96, 192, 384)
"""Pixels, of the square with the mean area of the truth's boxes: COCO's small, medium and large, and large in three."""

SEAM_DISTANCES = (8, 16, 32)
"""Frames; in a clip of 64, nothing is further than 32 from its ends."""


@dataclass(frozen=True, eq=False)
class Breakdown:
    """The bin, 0..len(bins)-1, of every truth."""

    name: str
    unit: str
    bins: tuple[str, ...]
    bin_G: np.ndarray

    @property
    def title(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


def breakdowns(inputs: ScoringInput, scored_G: np.ndarray) -> tuple[list[Breakdown], list[str]]:
    """All that can be said about these truths, and a note for each thing that can't."""
    known, notes = [by_length(inputs)], []
    if (inputs.truths.num_boxes_N[scored_G] > 0).any():
        known.append(by_box_size(inputs))
    else:
        notes.append("missed truths by box size: not given, no scored truth has a box")
    known += [by_overlap(inputs, same_label=True), by_overlap(inputs, same_label=False)]
    videos = np.unique(inputs.truths.video_N[scored_G])
    num_unknown = sum(inputs.video_ids[video] not in inputs.seams for video in videos.tolist())
    if len(videos) and num_unknown == len(videos):
        notes.append(
            "missed truths by distance to a clip seam: not given, the seams are known for no video; they are read from "
            "a token store"
        )
    else:
        known.append(by_seam(inputs))
        if num_unknown:
            notes.append(
                f"missed truths by distance to a clip seam: the seams of {num_unknown} of {len(videos)} videos with "
                "truth are not known; they are read from a token store"
            )
    return known, notes


def by_length(inputs: ScoringInput) -> Breakdown:
    """The length of a truth's interval."""
    return Breakdown(
        "length", "frames", _range_texts(LENGTHS), np.digitize(inputs.truths.end_N - inputs.truths.start_N, LENGTHS)
    )


def by_box_size(inputs: ScoringInput) -> Breakdown:
    """The side of a square as large as a truth's boxes are on average."""
    truths = inputs.truths
    area_B = (truths.box_B4[:, 2:] - truths.box_B4[:, :2]).prod(axis=1)
    area_G = np.bincount(truths.owner_B, weights=area_B, minlength=len(truths)) / np.maximum(truths.num_boxes_N, 1)
    bin_G = np.where(truths.num_boxes_N > 0, np.digitize(np.sqrt(area_G), SIDES), len(SIDES) + 1)
    under, medium, *large = _range_texts(SIDES)
    texts = (f"{under}, COCO's small", f"{medium}, medium", *(f"{text}, large" for text in large), "no box")
    return Breakdown("box size", "side in pixels", texts, bin_G)


def by_overlap(inputs: ScoringInput, same_label: bool) -> Breakdown:
    """How much of a truth's interval is covered by other truths of its video."""
    truths = inputs.truths
    group_G = truths.video_N * len(inputs.labels) + truths.label_N if same_label else truths.video_N
    share_G = covered_by_others(group_G, truths.spans_N2) / (truths.end_N - truths.start_N)
    bin_G = np.where(share_G > 0, np.digitize(share_G, (0.5,)) + 1, 0)
    name = f"overlap with events of {'the same' if same_label else 'any'} label"
    return Breakdown(name, "share of its frames", ("none", "under half", "half or more"), bin_G)


def by_seam(inputs: ScoringInput) -> Breakdown:
    """The distance from the nearest of a truth's frames to the nearest seam of its video; a seam inside comes first."""
    truths = inputs.truths
    inside, nothing, unknown = 0, len(SEAM_DISTANCES) + 2, len(SEAM_DISTANCES) + 3
    bin_G = np.full(len(truths), unknown)
    for video, video_id in enumerate(inputs.video_ids):
        own = np.flatnonzero(truths.video_N == video) if video_id in inputs.seams else ()
        if not len(own):
            continue
        seams = np.unique(np.asarray(inputs.seams[video_id], dtype=np.float64))
        edges = np.concatenate([[-np.inf], seams, [np.inf]])
        before, after = truths.start_N[own], truths.end_N[own]
        last_before = edges[np.searchsorted(edges, before, side="right") - 1]
        first_after = edges[np.searchsorted(edges, after, side="left")]
        is_inside = np.searchsorted(seams, before, side="right") < np.searchsorted(seams, after, side="left")
        distance = np.minimum(before - last_before, first_after - after)
        bin_G[own] = np.where(is_inside, inside, np.digitize(distance, SEAM_DISTANCES) + 1) if len(seams) else nothing
    texts = ("a seam inside", *_range_texts(SEAM_DISTANCES), "no seam in the video", "not known")
    return Breakdown("distance to a clip seam", "frames", texts, bin_G)


def covered_by_others(group_N: np.ndarray, spans_N2: np.ndarray) -> np.ndarray:
    """How much (N,) of each half-open interval is covered by at least one other of its group."""
    num = len(group_N)
    at_E = np.concatenate([spans_N2[:, 0], spans_N2[:, 1]])
    group_E = np.concatenate([group_N, group_N])
    order = np.lexsort((at_E, group_E))
    # Inside an interval there is another one wherever at least two are open.
    open_E = np.cumsum(np.where(order < num, 1, -1))
    stretch_E = np.diff(at_E[order], append=0.0)
    shared_E = np.where(open_E >= 2, stretch_E, 0.0)
    until_E = np.empty(2 * num)
    until_E[order] = np.concatenate([[0.0], np.cumsum(shared_E)[:-1]]) if num else 0.0
    return until_E[num:] - until_E[:num]


def _range_texts(edges: Sequence[int]) -> tuple[str, ...]:
    between = [f"{low} to {high}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    return (f"under {edges[0]}", *between, f"{edges[-1]} or more")
