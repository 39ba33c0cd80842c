"""Figures that are one sum over videos divided by another: means, shares, accuracies.

Shapes: N scored items, V videos, W resamples of the videos.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Ratio:
    """`part_V` summed over the videos, divided by `whole_V` summed over them."""

    part_V: np.ndarray
    whole_V: np.ndarray

    @classmethod
    def of(cls, part_N: np.ndarray, video_N: np.ndarray, num_videos: int, whole_N: np.ndarray | None = None) -> Ratio:
        """The items' parts over their wholes; without wholes, the mean of the parts."""
        return cls(
            np.bincount(video_N, weights=np.asarray(part_N, dtype=np.float64), minlength=num_videos),
            np.bincount(video_N, weights=whole_N, minlength=num_videos).astype(np.float64),
        )

    def over(self, weights_WV: np.ndarray) -> np.ndarray:
        """The figure (W,) where each video counts as often as its weight says; NaN where the whole is 0."""
        weights_WV = np.asarray(weights_WV, dtype=np.float64)
        part_W, whole_W = weights_WV @ self.part_V, weights_WV @ self.whole_V
        return np.divide(part_W, whole_W, out=np.full(len(weights_WV), np.nan), where=whole_W > 0)

    def value(self) -> float:
        """The figure where each video counts once."""
        return float(self.over(np.ones((1, len(self.part_V))))[0])


def values_of(ratios: Mapping[str, Ratio]) -> dict[str, float]:
    """The figures by name, without those whose whole is 0."""
    values = {name: ratio.value() for name, ratio in ratios.items()}
    return {name: value for name, value in values.items() if not np.isnan(value)}


def mean_of_known(values_LW: np.ndarray) -> np.ndarray:
    """The mean (W,) over rows of what is not NaN, NaN where all is."""
    known_LW = ~np.isnan(values_LW)
    num_W = known_LW.sum(axis=0)
    summed_W = np.where(known_LW, values_LW, 0.0).sum(axis=0)
    return np.divide(summed_W, num_W, out=np.full(len(num_W), np.nan), where=num_W > 0)
