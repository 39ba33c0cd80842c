"""Where things are in time: frames, seconds and steps of the token grid, in both directions.

The only module that converts between the three. Frame f of a video lies between the frame edges f and f + 1,
and all frame and step positions here are such edges, so that a video of N frames spans 0..N:

    frames    0     1     2     3     4     5     6     7=N
              |-----|-----|-----|-----|-----|-----|-----|
    seconds   t[0]  t[1]  t[2]  t[3]  t[4]  t[5]  t[6]  t[6] + 1/fps
    steps     0           1           2           3     T=4      (tubelet 2, every frame, last frame repeated)

Shapes: T steps, N frames of the video.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

_LAST_DIGITS = 4


@dataclass(frozen=True, eq=False)
class TimeGrid:
    """The token time axis of one video.

    `frames_T_tubelet` holds the frame numbers that each step was made from, in order; a frame that padding
    repeated stands there twice. Step t covers the frames from its own first one to the first one of step t + 1,
    and the last step ends with the video.

    Raises ValueError when the frame numbers are not integers in 0..num_frames - 1 in non-decreasing order.
    """

    frames_T_tubelet: np.ndarray
    num_frames: int
    start_T: np.ndarray = field(init=False, repr=False)
    end_T: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        frames = np.asarray(self.frames_T_tubelet)
        if frames.ndim != 2 or 0 in frames.shape or not np.issubdtype(frames.dtype, np.integer):
            raise ValueError(f"step frames: expected integers of shape (T, tubelet), got {frames.dtype} {frames.shape}")
        if self.num_frames < 1 or frames.min() < 0 or frames.max() >= self.num_frames:
            raise ValueError(
                f"step frames: expected numbers in 0..{self.num_frames - 1}, got {frames.min()}..{frames.max()}"
            )
        if (np.diff(frames.reshape(-1)) < 0).any():
            at = int(np.argmax(np.diff(frames.reshape(-1)) < 0)) // frames.shape[1]
            raise ValueError(f"step frames: expected non-decreasing numbers, got a decrease at or after step {at}")
        start_T = frames[:, 0].astype(np.float64)
        end_T = np.append(start_T[1:], float(self.num_frames))
        for name, value in (("frames_T_tubelet", frames), ("start_T", start_T), ("end_T", end_T)):
            object.__setattr__(self, name, value)

    @property
    def num_steps(self) -> int:
        return len(self.start_T)

    @cached_property
    def middle_T(self) -> np.ndarray:
        """(T,) float64: the middle of each step, a frame edge or half way between two."""
        return (self.start_T + self.end_T) / 2

    def frame_to_step(self, frames: ArrayLike) -> np.ndarray:
        """Frame edges (any shape, real) as step coordinates 0..T; what lies outside the grid becomes 0 or T."""
        edges = np.append(self.start_T, self.end_T[-1])
        return _interpolate(np.clip(frames, edges[0], edges[-1]), edges, np.arange(len(edges), dtype=np.float64))

    def step_to_frame(self, steps: ArrayLike) -> np.ndarray:
        """Inverse of `frame_to_step`: step coordinates (any shape, clipped to 0..T) as frame edges."""
        edges = np.append(self.start_T, self.end_T[-1])
        return _interpolate(np.clip(steps, 0, self.num_steps), np.arange(len(edges), dtype=np.float64), edges)

    def steps_of_span(self, start_frame: float, end_frame: float) -> tuple[int, int]:
        """Half-open range (first, stop) of the steps that overlap [start_frame, end_frame); empty outside the grid."""
        first = int(np.searchsorted(self.end_T, start_frame, side="right"))
        stop = int(np.searchsorted(self.start_T, end_frame, side="left"))
        return first, max(first, stop)

    def step_of_frame(self, frame: ArrayLike) -> int | np.ndarray:
        """The step that covers a whole frame; an int for one frame, an array for many.

        A frame before the first step belongs to step 0. Raises ValueError for a frame outside the video.
        """
        frames = np.asarray(frame)
        if frames.size and (frames.min() < 0 or frames.max() >= self.num_frames):
            raise ValueError(
                f"frame outside the video: expected 0..{self.num_frames - 1}, got {frames.min()}..{frames.max()}"
            )
        steps = np.clip(np.searchsorted(self.start_T, frames, side="right") - 1, 0, None)
        return int(steps) if frames.ndim == 0 else steps


def frames_to_seconds(frames: ArrayLike, frame_time_s: ArrayLike, fps: float) -> np.ndarray:
    """Frame edges (any shape, real) as presentation times in seconds.

    `frame_time_s` (N,) are the presentation times of the frames, and the last frame lasts 1 / fps.
    Positions outside the video continue at the rate `fps`, so that a caller can see by how much they are outside.
    """
    frames = np.asarray(frames, dtype=np.float64)
    time_s, rate = _edge_times(frame_time_s, fps)
    last = len(time_s) - 1
    inside = _interpolate(np.clip(frames, 0, last), np.arange(last + 1, dtype=np.float64), time_s)
    return inside + (np.minimum(frames, 0) + np.maximum(frames - last, 0)) / rate


def seconds_to_frames(seconds: ArrayLike, frame_time_s: ArrayLike, fps: float) -> np.ndarray:
    """Inverse of `frames_to_seconds`."""
    seconds = np.asarray(seconds, dtype=np.float64)
    time_s, rate = _edge_times(frame_time_s, fps)
    inside = _interpolate(np.clip(seconds, time_s[0], time_s[-1]), time_s, np.arange(len(time_s), dtype=np.float64))
    return inside + (np.minimum(seconds - time_s[0], 0) + np.maximum(seconds - time_s[-1], 0)) * rate


def nominal_frames_to_seconds(frames: ArrayLike, fps: float) -> np.ndarray:
    """Frame edges as seconds where nothing but a constant rate is known."""
    return np.asarray(frames, dtype=np.float64) / _positive_rate(fps)


def nominal_seconds_to_frames(seconds: ArrayLike, fps: float) -> np.ndarray:
    """Inverse of `nominal_frames_to_seconds`.

    What misses a whole frame by no more than the last digits of a float is that frame: 0.28 s at 25 fps is frame 7, not
    7.000000000000001. Frames written as seconds and read again are thereby the same.
    """
    rate = _positive_rate(fps)
    # Seconds that are too many stay infinite frames, which every event refuses.
    with np.errstate(over="ignore", invalid="ignore"):
        frames = np.asarray(seconds, dtype=np.float64) * rate
        whole = np.round(frames)
        return np.where(np.abs(frames - whole) <= _LAST_DIGITS * np.spacing(np.abs(whole)), whole, frames)


def _edge_times(frame_time_s: ArrayLike, fps: float) -> tuple[np.ndarray, float]:
    rate = _positive_rate(fps)
    time_s = np.asarray(frame_time_s, dtype=np.float64)
    if time_s.ndim != 1 or len(time_s) == 0 or not np.isfinite(time_s).all() or (np.diff(time_s) < 0).any():
        raise ValueError(f"frame times: expected (N,) finite non-decreasing seconds, got shape {time_s.shape}")
    return np.append(time_s, time_s[-1] + 1 / rate), rate


def _positive_rate(fps: float) -> float:
    rate = float(fps)
    if not (np.isfinite(rate) and rate > 0):
        raise ValueError(f"fps: expected a positive number, got {fps}")
    return rate


def _interpolate(x: np.ndarray, knots_x: np.ndarray, knots_y: np.ndarray) -> np.ndarray:
    """Piecewise linear, for x within the knots. Unlike np.interp, equal knots are defined: the last of them counts,
    so that mapping a position there and back returns it."""
    x = np.asarray(x, dtype=np.float64)
    left = np.clip(np.searchsorted(knots_x, x, side="right") - 1, 0, len(knots_x) - 2)
    width = knots_x[left + 1] - knots_x[left]
    fraction = np.where(width > 0, (x - knots_x[left]) / np.where(width > 0, width, 1), 0)
    return knots_y[left] + fraction * (knots_y[left + 1] - knots_y[left])
