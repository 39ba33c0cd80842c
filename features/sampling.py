"""Which frames of a video are sampled: every n-th, or so many per second by presentation time."""

import math
from dataclasses import dataclass

from vjepa_loc.errors import ConfigError

# Containers round times, Matroska to whole milliseconds: a frame this much before its tick is still the tick's frame.
TICK_TOLERANCE_S = 0.0015


@dataclass
class FrameSampler:
    """Asked about every frame in order, says whether it is sampled.

    With `sample_fps`, the first frame at or after each tick k / sample_fps; ticks do not drift, because each is counted from
    the first frame. Where several ticks pass between two frames, the later frame is sampled once.
    """

    frame_step: int = 1
    sample_fps: float | None = None

    def __post_init__(self) -> None:
        if self.frame_step < 1:
            raise ConfigError(f"frame_step: expected 1 or more, got {self.frame_step}")
        if self.sample_fps is not None:
            if self.frame_step != 1:
                raise ConfigError("frame_step and sample_fps exclude each other; give one of them")
            if not (math.isfinite(self.sample_fps) and self.sample_fps > 0):
                raise ConfigError(f"sample_fps: expected a positive rate, got {self.sample_fps}")
        self._next_tick = 0

    def takes(self, index: int, time_s: float) -> bool:
        """Whether frame `index`, shown `time_s` seconds after the first, is sampled."""
        if self.sample_fps is None:
            return index % self.frame_step == 0
        ticks_passed = math.floor((time_s + TICK_TOLERANCE_S) * self.sample_fps) + 1
        taken = ticks_passed > self._next_tick
        self._next_tick = max(self._next_tick, ticks_passed)
        return taken
