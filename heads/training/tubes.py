"""Boxes of many answers in one ragged array, so that pairs of answers can be compared without a loop.

Shapes: N answers, K boxes of all of them together, M pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vjepa_loc.overlap import paired_box_iou

ENOUGH_BOX_IOU = 0.5
"""Two boxes of one thing by two views of it rarely agree better; from here on they count as the same."""


@dataclass(frozen=True)
class Tubes:
    """Answer n has boxes on the steps `first_N[n]` to `first_N[n] + count_N[n]`, at rows from `offset_N[n]` of `boxes_norm_K4`."""

    first_N: np.ndarray
    count_N: np.ndarray
    boxes_norm_K4: np.ndarray

    @classmethod
    def of(cls, first_N: Sequence[int], boxes_N: Sequence[np.ndarray]) -> Tubes:
        """From the first step of each answer and its boxes (k, 4); k may be 0."""
        counts = [len(boxes_k4) for boxes_k4 in boxes_N]
        return cls(np.array(first_N, np.int64), np.array(counts, np.int64), np.concatenate([np.zeros((0, 4)), *boxes_N]))

    @cached_property
    def offset_N(self) -> np.ndarray:
        return np.cumsum(self.count_N) - self.count_N

    def boxes(self, index: int) -> np.ndarray:
        """Boxes (K, 4) of one answer."""
        start = int(self.offset_N[index])
        return self.boxes_norm_K4[start : start + int(self.count_N[index])]


def box_agreement(a: Tubes, a_M: np.ndarray, b: Tubes, b_M: np.ndarray) -> np.ndarray:
    """How far the boxes of each pair (answer a_M[m] of `a`, answer b_M[m] of `b`) agree on their common steps: 0..1.

    The mean IoU over the common steps, divided by `ENOUGH_BOX_IOU` and cut at 1. Pairs without a common step, such as answers
    without boxes, do not disagree: 1.
    """
    low_M = np.maximum(a.first_N[a_M], b.first_N[b_M])
    high_M = np.minimum(a.first_N[a_M] + a.count_N[a_M], b.first_N[b_M] + b.count_N[b_M])
    common_M = np.maximum(high_M - low_M, 0)
    pair_K = np.repeat(np.arange(len(common_M)), common_M)
    step_K = np.arange(common_M.sum()) - np.repeat(np.cumsum(common_M) - common_M, common_M) + low_M[pair_K]
    rows_a_K = a.offset_N[a_M][pair_K] + step_K - a.first_N[a_M][pair_K]
    rows_b_K = b.offset_N[b_M][pair_K] + step_K - b.first_N[b_M][pair_K]
    iou_K = paired_box_iou(a.boxes_norm_K4[rows_a_K], b.boxes_norm_K4[rows_b_K])
    summed_M = np.bincount(pair_K, iou_K, minlength=len(common_M))
    mean_M = np.divide(summed_M, common_M, out=np.full(len(common_M), ENOUGH_BOX_IOU), where=common_M > 0)
    return np.minimum(mean_M / ENOUGH_BOX_IOU, 1.0)
