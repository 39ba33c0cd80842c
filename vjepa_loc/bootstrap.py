"""How sure a figure is: percentile intervals from resampled videos, for figures and for differences of figures.

A resample draws as many videos as there are, with replacement; videos, not events, since the events of a video depend
on each other. Two sets of predictions are compared on the same resamples. Efron and Tibshirani, An Introduction to the
Bootstrap (1993), chapter 13.

Shapes: V videos, W resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vjepa_loc.errors import ConfigError

# The two ends of 95%.
PERCENTILES = 2.5, 97.5

# Every resample of every figure is held at once; more would say nothing new about an interval.
MOST_RESAMPLES = 100_000


class Interval(NamedTuple):
    """A percentile interval, both ends included."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Difference:
    """How much one figure is above another; `interval` is None where there is none."""

    difference: float
    interval: Interval | None = None


@dataclass(frozen=True)
class Bootstrap:
    """How often videos are drawn, and from which seed; 0 resamples are no intervals.

    Raises ConfigError for less than 0, and for more resamples than `MOST_RESAMPLES`.
    """

    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for flag, value in (("--bootstrap", self.resamples), ("--seed", self.seed)):
            if value < 0:
                raise ConfigError(f"{flag}: expected 0 or more, got {value}")
        if self.resamples > MOST_RESAMPLES:
            raise ConfigError(f"--bootstrap: expected at most {MOST_RESAMPLES}, got {self.resamples}; 1000 are usual")

    def weights(self, num_videos: int) -> np.ndarray:
        """How often each video is drawn in each resample, (W, V), the same for the same seed; W is 0 for fewer than two videos."""
        if num_videos < 2:
            return np.empty((0, num_videos), dtype=np.int64)
        even_V = np.full(num_videos, 1 / num_videos)
        return np.random.default_rng(self.seed).multinomial(num_videos, even_V, size=self.resamples)

    def missing_note(self, num_videos: int) -> str | None:
        """Why there are no intervals although they are asked for."""
        if self.resamples and num_videos < 2:
            return f"no intervals: they come from drawing videos again, and there is {'one video' if num_videos else 'no video'}"
        return None


def percentile_interval(figure_W: np.ndarray) -> Interval | None:
    """The middle 95% of those resamples in which the figure is defined (not NaN); None where there are none."""
    known_W = figure_W[~np.isnan(figure_W)]
    if not len(known_W):
        return None
    low, high = np.percentile(known_W, PERCENTILES)
    return Interval(float(low), float(high))


def intervals_of(figures: Mapping[str, np.ndarray]) -> dict[str, Interval]:
    """The interval of each figure, by key, from its values (W,); a figure without any is left out."""
    found = {key: percentile_interval(figure_W) for key, figure_W in figures.items()}
    return {key: interval for key, interval in found.items() if interval is not None}


def undefined_note(figures: Mapping[str, np.ndarray]) -> str | None:
    """Which figures were undefined in how many resamples, in a line; None where all were defined."""
    keys_of: dict[int, list[str]] = {}
    for key, figure_W in figures.items():
        if num_undefined := int(np.isnan(figure_W).sum()):
            keys_of.setdefault(num_undefined, []).append(key)
    if not keys_of:
        return None
    resamples = len(next(iter(figures.values())))
    counts = "; ".join(f"{count} for {', '.join(keys)}" for count, keys in sorted(keys_of.items()))
    return f"intervals: resamples in which a figure is undefined (such as no truth drawn) are left out, of {resamples}: {counts}"


def outside_note(figures: Mapping[str, float], intervals: Mapping[str, Interval]) -> str | None:
    """Which figures lie outside their own interval, in a line; None where none does.

    A figure that grows when videos are drawn twice, as a calibration error does, is biased in every resample.
    """
    outside = [key for key, interval in intervals.items() if not interval.low <= figures[key] <= interval.high]
    if not outside:
        return None
    return f"intervals: drawn twice, a video changes these figures themselves, so that they lie outside of their interval: {', '.join(outside)}"
