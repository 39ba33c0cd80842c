"""Many tubes against many others: which pairs share time, and what their boxes on common frames add up to.

Everything is computed from flat columns, only for pairs of one video and label that overlap in time, and a stretch of
pairs at a time, so that memory stays small however many pairs there are.

Shapes: N tubes, B boxes of all of them one after another, K pairs of tubes, C pairs of boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vjepa_loc.scoring_input import EventTable

# Pairs of tubes, and pairs of boxes, that are looked at together.
_CHUNK = 400_000

BoxSimilarity = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From boxes (C, 4) and (C, 4) to a number (C,) for each row."""


@dataclass(frozen=True, eq=False)
class Tubes:
    """The tubes of N events, in the order of their table.

    Only tubes of one `group_N` (video and label) are compared. `first_N` and `last_N` are the first and the last frame
    with a box (0 and -1 without any). Boxes of tube n are rows `first_box_N1[n]` to `first_box_N1[n + 1]`, by frame.
    """

    group_N: np.ndarray
    first_N: np.ndarray
    last_N: np.ndarray
    first_box_N1: np.ndarray
    frame_B: np.ndarray
    box_B4: np.ndarray

    @classmethod
    def of(cls, table: EventTable, num_labels: int, box_B4: np.ndarray | None = None) -> Tubes:
        """The tubes of `table`, with other boxes (B, 4) where a protocol counts pixels in another way."""
        boxed_N = table.num_boxes_N > 0
        first_N, last_N = np.zeros(len(table), dtype=np.int64), np.full(len(table), -1)
        first_N[boxed_N] = table.frame_B[table.first_box_N1[:-1][boxed_N]]
        last_N[boxed_N] = table.frame_B[table.first_box_N1[1:][boxed_N] - 1]
        group_N = table.video_N * num_labels + table.label_N
        boxes_B4 = table.box_B4 if box_B4 is None else box_B4
        return cls(group_N, first_N, last_N, table.first_box_N1, table.frame_B, boxes_B4)

    @property
    def num_boxes_N(self) -> np.ndarray:
        return np.diff(self.first_box_N1)

    @property
    def with_boxes(self) -> np.ndarray:
        """Indices of the tubes that have any box."""
        return np.flatnonzero(self.num_boxes_N)

    def boxes_before(self, tube_K: np.ndarray, frame_K: np.ndarray) -> np.ndarray:
        """For each tube, the row of its first box at the frame or later."""
        return np.searchsorted(self._key_B, self._keys(tube_K, frame_K))

    def rows_at(self, tube_C: np.ndarray, frame_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each tube its row on the frame, and whether there is one (frames within the tube's extent)."""
        key_C = self._keys(tube_C, frame_C)
        row_C = np.searchsorted(self._key_B, key_C)
        return row_C, self._key_B[row_C] == key_C

    @cached_property
    def owner_B(self) -> np.ndarray:
        """The tube that each box belongs to."""
        return np.repeat(np.arange(len(self.group_N)), self.num_boxes_N)

    @cached_property
    def volume_N(self) -> np.ndarray:
        """Areas of a tube's boxes, summed."""
        area_B = (self.box_B4[:, 2:] - self.box_B4[:, :2]).prod(axis=1)
        return np.bincount(self.owner_B, weights=area_B, minlength=len(self.group_N))

    @cached_property
    def _key_B(self) -> np.ndarray:
        """Tube and frame as one number, ascending over all boxes."""
        return self._keys(self.owner_B, self.frame_B)

    @cached_property
    def _num_frames(self) -> int:
        return int(self.last_N.max(initial=0)) + 2

    def _keys(self, tube_C: np.ndarray, frame_C: np.ndarray) -> np.ndarray:
        return tube_C * self._num_frames + np.minimum(frame_C, self._num_frames - 1)


TubeSimilarity = Callable[[Tubes, Tubes, np.ndarray, np.ndarray], np.ndarray]
"""From two sets of tubes and K pairs of indices into them to their tube IoU (K,)."""


def pairs_of_tubes(
    a: Tubes, b: Tubes, chosen_a: np.ndarray, chosen_b: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of the pairs (K,), (K,) of chosen tubes of one group whose extents share a frame, each pair once."""
    for at_a, at_b in pairs_in_time(
        a.group_N[chosen_a], a.first_N[chosen_a], a.last_N[chosen_a],
        b.group_N[chosen_b], b.first_N[chosen_b], b.last_N[chosen_b],
    ):  # fmt: skip
        yield chosen_a[at_a], chosen_b[at_b]


def pairs_in_time(
    group_a, first_a, last_a, group_b, first_b, last_b
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of the index pairs (K,), (K,) of one group whose closed intervals [first, last] touch, each pair once."""
    if not len(group_a) or not len(group_b):
        return
    sizes = np.cumsum([len(group_a), len(group_a), len(group_b)])
    times, place = np.unique(np.concatenate([first_a, last_a, first_b, last_b]), return_inverse=True)
    first_a, last_a, first_b, last_b = np.split(place, sizes)
    begin_a, end_a = group_a * len(times) + first_a, group_a * len(times) + last_a
    begin_b, end_b = group_b * len(times) + first_b, group_b * len(times) + last_b
    # Of two intervals that touch, one begins within the other; where both begin together, b is said to.
    yield from _beginning_within(begin_a, end_a, begin_b, "left")
    for at_b, at_a in _beginning_within(begin_b, end_b, begin_a, "right"):
        yield at_a, at_b


def similar_pairs(
    tubes: Tubes, truth_tubes: Tubes, similarity: TubeSimilarity, least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of a tube (K,) and a truth (K,) of its video and label with a similarity (K,) of at least `least`."""
    parts = [(np.empty(0, dtype=np.int64),) * 2 + (np.empty(0),)]
    for tube_K, truth_K in pairs_of_tubes(tubes, truth_tubes, tubes.with_boxes, truth_tubes.with_boxes):
        similarity_K = similarity(tubes, truth_tubes, tube_K, truth_K)
        enough = similarity_K >= least
        parts.append((tube_K[enough], truth_K[enough], similarity_K[enough]))
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def sums_on_common_frames(
    a: Tubes, b: Tubes, a_K: np.ndarray, b_K: np.ndarray, similarity: BoxSimilarity
) -> tuple[np.ndarray, np.ndarray]:
    """For each pair of tubes: the sum (K,) of `similarity` over the frames on which both have a box, and how many (K,).

    Added up in the order of `numpy.sum`, to the last bit: a mean of exactly a threshold must reach it here where it
    does in a tool that takes numpy's mean.
    """
    sum_K, num_K = np.zeros(len(a_K)), np.zeros(len(a_K), dtype=np.int64)
    begin_K = a.boxes_before(a_K, np.maximum(a.first_N[a_K], b.first_N[b_K]))
    stop_K = a.boxes_before(a_K, np.minimum(a.last_N[a_K], b.last_N[b_K]) + 1)
    for pairs, at_C, row_a_C in _ranges(begin_K, stop_K - begin_K):
        row_b_C, common_C = b.rows_at(b_K[pairs][at_C], a.frame_B[row_a_C])
        if not common_C.all():
            at_C, row_a_C, row_b_C = at_C[common_C], row_a_C[common_C], row_b_C[common_C]
        num_K[pairs] = np.bincount(at_C, minlength=pairs.stop - pairs.start)
        sum_K[pairs] = _sums(similarity(a.box_B4[row_a_C], b.box_B4[row_b_C]), at_C, num_K[pairs])
    return sum_K, num_K


def exact_on_paper(iou_K: np.ndarray) -> np.ndarray:
    """IoUs (K,) without the last digits, which adding up many quotients blurs: a box IoU of 0.6 on each of ten frames is
    0.6, and reaches it. Not where a tool that compares sums as they are is to be met."""
    return np.round(iou_K, 12)


def _sums(values_C: np.ndarray, at_C: np.ndarray, num_K: np.ndarray) -> np.ndarray:
    # reduceat adds the rest of a run, pairwise, to its first number; numpy.sum adds all of them, pairwise, to zero.
    padded = np.zeros(len(values_C) + len(num_K))
    padded[np.arange(len(values_C)) + at_C + 1] = values_C
    return np.add.reduceat(padded, np.cumsum(num_K) - num_K + np.arange(len(num_K)))


def _beginning_within(begin_a, end_a, begin_b, side) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order_b = np.argsort(begin_b, kind="stable")
    ordered_b = begin_b[order_b]
    start = np.searchsorted(ordered_b, begin_a, side=side)
    stop = np.searchsorted(ordered_b, end_a, side="right")
    for chunk, at, row in _ranges(start, np.maximum(stop - start, 0)):
        yield chunk.start + at, order_b[row]


def _ranges(start_K: np.ndarray, num_K: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The numbers `start`, `start + 1`, ... of each of K ranges: a chunk of ranges, for each number its range counted
    from the chunk's first, and the number itself."""
    total_K1 = np.concatenate([[0], np.cumsum(num_K)])
    begin = 0
    while begin < len(num_K):
        stop = max(begin + 1, int(np.searchsorted(total_K1, total_K1[begin] + _CHUNK, side="right")) - 1)
        chunk = slice(begin, stop)
        at = np.repeat(np.arange(stop - begin), num_K[chunk])
        number = np.arange(len(at)) + (start_K[chunk] - (total_K1[chunk] - total_K1[begin]))[at]
        if len(at):
            yield chunk, at, number
        begin = stop
