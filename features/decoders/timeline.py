"""Presentation times as a stream gives them, made into times that can be relied on; and the frame rate that they show.

Times are seconds from the first shown frame and strictly increasing, whatever the container says. Every repair is counted.
"""

from array import array
from fractions import Fraction

import numpy as np

# A step back by more than this is a clock that started again (joined or wrapped transport streams), not a jitter.
RESTART_S = 1.0
# A jittered frame is put this part of a frame period behind its predecessor, so that the next one finds its place free.
JITTER_STEP = 1e-3
MIN_RATE, MAX_RATE = Fraction(1, 100), Fraction(1000)


class Timeline:
    """Takes the container's time of one frame after the other. `fps` is used where times are missing."""

    def __init__(self, fps: Fraction):
        self._period_s = float(1 / fps)
        self._origin_s: float | None = None
        self._time_s = array("d")
        self.num_missing = 0
        self.num_out_of_order = 0
        self.num_restarts = 0

    def add(self, container_time_s: float | None) -> float:
        """The time of the next frame, in seconds."""
        time_s = self._next_time_s(container_time_s)
        self._time_s.append(time_s)
        return time_s

    def _next_time_s(self, container_time_s: float | None) -> float:
        expected_s = self._time_s[-1] + self._period_s if self._time_s else 0.0
        if container_time_s is None:
            self.num_missing += 1
            return expected_s
        if self._origin_s is None:
            self._origin_s = container_time_s - expected_s
        time_s = container_time_s - self._origin_s
        if not self._time_s or time_s > self._time_s[-1]:
            return time_s
        if self._time_s[-1] - time_s > RESTART_S:
            self.num_restarts += 1
            self._origin_s = container_time_s - expected_s
            return expected_s
        self.num_out_of_order += 1
        return self._time_s[-1] + JITTER_STEP * self._period_s

    def __len__(self) -> int:
        return len(self._time_s)

    @property
    def time_s(self) -> np.ndarray:
        """float64 (num_frames,)."""
        return np.array(self._time_s, dtype=np.float64)

    @property
    def made_up(self) -> bool:
        """Whether any time is not the container's own."""
        return bool(self.num_missing or self.num_out_of_order or self.num_restarts)

    @property
    def all_missing(self) -> bool:
        return self.num_missing == len(self._time_s)


def sane_rate(rate: Fraction | None) -> Fraction | None:
    """`rate`, or None where it is absent or cannot be one (containers print 90000/1 for "variable")."""
    return Fraction(rate) if rate is not None and MIN_RATE <= rate <= MAX_RATE else None


def settle_rate(stated: Fraction | None, time_s: np.ndarray, tick_s: float) -> tuple[Fraction | None, bool]:
    """The average frame rate, and whether frames are unevenly spaced.

    The container's `stated` rate holds where the times (in ticks of `tick_s`) agree with it; otherwise the times decide.
    """
    if len(time_s) < 2:
        return stated, False
    periods_s = np.diff(time_s)
    typical_s = float(np.median(periods_s))
    variable = bool((np.abs(periods_s - typical_s) > 2 * tick_s + 0.01 * typical_s).any())
    measured = (len(time_s) - 1) / float(time_s[-1] - time_s[0])
    tolerance = 0.05 if variable else max(0.001, 2 * tick_s / float(time_s[-1] - time_s[0]))
    if stated is not None and abs(float(stated) / measured - 1) <= tolerance:
        return stated, variable
    return _simple_rate(measured, 0.001 if variable else tolerance), variable


def _simple_rate(rate: float, tolerance: float) -> Fraction:
    """The simplest customary rate near `rate`: whole, then n * 1000/1001, then any fraction."""
    for candidate in (Fraction(round(rate)), Fraction(round(rate * 1.001) * 1000, 1001)):
        if candidate > 0 and abs(float(candidate) / rate - 1) <= tolerance:
            return candidate
    return Fraction(rate).limit_denominator(1001) or Fraction(rate)


def gaps_after(time_s: np.ndarray, fps: Fraction, limit: int = 100) -> list[dict[str, float | int]]:
    """Places where more than one and a half frame periods pass between two frames, the first `limit` of them."""
    periods = np.diff(time_s) * float(fps)
    return [
        {
            "after_frame": int(frame),
            "start_s": round(float(time_s[frame]), 6),
            "end_s": round(float(time_s[frame + 1]), 6),
            "missing_frames": int(round(periods[frame])) - 1,
        }
        for frame in np.flatnonzero(periods > 1.5)[:limit]
    ]
