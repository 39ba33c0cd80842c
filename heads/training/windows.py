"""Windows over a video: which frames a head sees at once, in training and when it slides over a whole video.

A window is `num_frames` frames long and starts at a whole frame of its video. It may hang over either end of the video: what
lies outside has no steps. Positions inside it are frames from its start, whatever the encoder's step length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vjepa_loc.timegrid import TimeGrid

SHORTEST_WINDOW_FRAMES = 256
LONGEST_WINDOW_FRAMES = 2048
WINDOW_MULTIPLE_FRAMES = 64
MARGIN_AROUND_LONGEST_EVENT = 1.25
FEWEST_STEPS = 16


@dataclass(frozen=True, order=True)
class Window:
    """Frames `start_frame` to `end_frame` (exclusive) of one video."""

    video_id: str
    start_frame: int
    num_frames: int

    def __post_init__(self):
        if self.num_frames < 1:
            raise ValueError(f"Window of video {self.video_id!r}: expected at least one frame, got {self.num_frames}")

    @property
    def end_frame(self) -> int:
        return self.start_frame + self.num_frames


def choose_window_frames(event_frames: Sequence[float], step_frames: float) -> int:
    """A window length that holds the longest training event whole with some context, and enough steps to look at.

    `event_frames` are the lengths of the training events, `step_frames` the coarsest step; both in frames.
    """
    longest = max(event_frames, default=0.0)
    wanted = min(max(MARGIN_AROUND_LONGEST_EVENT * longest, SHORTEST_WINDOW_FRAMES), LONGEST_WINDOW_FRAMES)
    wanted = max(wanted, FEWEST_STEPS * step_frames)
    return math.ceil(wanted / WINDOW_MULTIPLE_FRAMES) * WINDOW_MULTIPLE_FRAMES


def sliding_windows(video_id: str, num_frames: int, window_frames: int, hop_frames: int) -> list[Window]:
    """Windows every `hop_frames`; the last one ends with the video. A shorter video is one window that hangs over its end."""
    if not 1 <= hop_frames <= window_frames:
        raise ValueError(f"hop: expected 1 to {window_frames} frames, got {hop_frames}")
    last = max(0, num_frames - window_frames)
    starts = [*range(0, last, hop_frames), last]
    return [Window(video_id, start, window_frames) for start in starts]


def training_windows(
    video_id: str, num_frames: int, window_frames: int, generator: np.random.Generator
) -> list[Window]:
    """Windows that tile the video once, at a random phase; their number depends on the lengths alone.

    Tiling reads every frame once per epoch, so every event is seen, whole or cut at a tile's edge; the phase moves the edges
    from epoch to epoch. A video that fits into one window lies at a random place in it.
    """
    if num_frames <= window_frames:
        return [Window(video_id, -int(generator.integers(0, window_frames - num_frames + 1)), window_frames)]
    # Half a window more than the video needs, so that the phase has room; no tile shows less than an eighth of a window.
    num_windows = math.ceil(num_frames / window_frames + 0.5)
    slack = num_windows * window_frames - num_frames
    shortest_part = window_frames // 8
    low = max(0, slack - window_frames + shortest_part)
    high = max(low, min(slack, window_frames - shortest_part))
    phase = int(generator.integers(low, high + 1))
    return [Window(video_id, index * window_frames - phase, window_frames) for index in range(num_windows)]


def steps_in_window(time_grid: TimeGrid, window: Window) -> tuple[int, int]:
    """Half-open range (first, stop) of the steps whose middle lies in the window; never empty.

    By their middles every step belongs to exactly one of the tiles of a video. A window that holds no middle at all (one that is
    shorter than a step) gets the step nearest to its own middle.
    """
    middle_T = time_grid.middle_T
    first, stop = middle_T.searchsorted((window.start_frame, window.end_frame))
    if first < stop:
        return int(first), int(stop)
    nearest = int(np.argmin(np.abs(middle_T - (window.start_frame + window.end_frame) / 2)))
    return nearest, nearest + 1
