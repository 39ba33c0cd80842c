"""What every decoder gives: `VideoInfo`, `Frame`, and `VideoReader`, which numbers and times the frames and adds up the damage.

Shape legend: H x W displayed pixels, 3 = RGB.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from features.decoders.source import file_state, read_source
from features.decoders.timeline import Timeline, gaps_after, settle_rate
from features.schema import Damage, Source
from vjepa_loc.errors import VideoError

DEFAULT_NOMINAL_FPS = Fraction(25)
MAX_MESSAGES = 20
# A stream that ends earlier than its header says by more than both of these has lost its end.
LOST_END_S = 0.5
LOST_END_FRAMES = 3


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video when it is opened; a reader's `info` is settled when its last frame has been read.

    `width` and `height` are displayed pixels, `rotation` the counter-clockwise turn in degrees that was applied.
    `fps_nominal`: the source states no rate and `fps` was assumed.
    """

    width: int
    height: int
    rotation: int
    fps: Fraction
    fps_nominal: bool
    variable_rate: bool
    num_frames_in_header: int | None
    codec: str
    container: str
    duration_s: float | None


class Frame(NamedTuple):
    """One shown picture: its number, its presentation time, and contiguous uint8 RGB."""

    index: int
    time_s: float
    rgb_HW3: np.ndarray


class Decoded(NamedTuple):
    """One picture as a decoder hands it over: the container's time and how long it is shown, where known, and how to get pixels."""

    container_time_s: float | None
    duration_s: float | None
    corrupt: bool
    to_rgb: Callable[[], np.ndarray]


class VideoReader(ABC):
    """One pass over one video, in presentation order; memory does not grow with its length, save 8 bytes per frame.

    Iterate once, then read `info`, `num_frames`, `frame_time_s`, `times_made_up`, `damage` and `source`.
    A reader stands at a first frame that decodes. Errors of later packets are counted; a frame size that changes raises VideoError.
    """

    def __init__(self, path: Path, files: Sequence[Path], info: VideoInfo, tick_s: float, times_are_guesses: bool = False):
        self.path = path
        self.info = info
        self._files = files
        self._state_at_start = file_state(files)
        self.tick_s = tick_s
        self._times_are_guesses = times_are_guesses
        self._timeline = Timeline(info.fps)
        self._num_errors = 0
        self._num_corrupt = 0
        self._last_duration_s = 0.0
        self._messages: list[str] = []
        self._started = self._ended = False

    @abstractmethod
    def decoded(self) -> Iterator[Decoded]:
        """Pictures in presentation order. Reports what it skips through `_count_error`."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Libraries that decide about pixels."""

    def close(self) -> None:
        """Gives back what is open. Not needed after the last frame."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, wanted: Callable[[int, float], bool] = lambda index, time_s: True) -> Iterator[Frame]:
        """Yields the frames for which `wanted(index, time_s)`; the others are decoded but never become RGB."""
        if self._started:
            raise RuntimeError(f"{self.path}: a VideoReader is read once; open the video again")
        self._started = True
        for index, decoded in enumerate(self.decoded()):
            time_s = self._timeline.add(decoded.container_time_s)
            self._last_duration_s = decoded.duration_s or 0.0
            if decoded.corrupt:
                self._num_corrupt += 1
                self._note(f"frame {index} is broken")
            if wanted(index, time_s):
                yield Frame(index, time_s, self._checked(index, decoded.to_rgb()))
        self._settle()
        self.close()
        self._ended = True

    def _checked(self, index: int, rgb_HW3: np.ndarray) -> np.ndarray:
        if rgb_HW3.shape != (self.info.height, self.info.width, 3):
            height, width, *rest = rgb_HW3.shape
            raise VideoError(
                f"{self.path}: frame {index}: expected {self.info.width}x{self.info.height} pixels as in the first frame, "
                f"got {width}x{height}{'' if rest == [3] else f' of {rest} numbers'}; re-encode the video with one frame size"
            )
        return rgb_HW3

    def _count_error(self, message: str) -> None:
        self._num_errors += 1
        self._note(f"before frame {len(self._timeline)}: {message}")

    def _note(self, message: str) -> None:
        if len(self._messages) < MAX_MESSAGES:
            self._messages.append(message)

    def _settle(self) -> None:
        guesses = self._times_are_guesses or self._timeline.all_missing
        fps, variable = settle_rate(
            None if self.info.fps_nominal and not guesses else self.info.fps, self._timeline.time_s, self.tick_s
        )
        fps_nominal = self.info.fps_nominal and (guesses or fps is None)
        self.info = replace(self.info, fps=fps or self.info.fps, fps_nominal=fps_nominal, variable_rate=variable)

    def _after_the_end(self) -> None:
        if not self._ended:
            raise RuntimeError(f"{self.path}: known only after the last frame has been read")

    @property
    def num_errors(self) -> int:
        """Decoding errors so far, whole pictures that are marked as broken not among them."""
        return self._num_errors

    @property
    def num_frames(self) -> int:
        self._after_the_end()
        return len(self._timeline)

    @property
    def frame_time_s(self) -> np.ndarray:
        """float64 (num_frames,), 0 first, strictly increasing."""
        self._after_the_end()
        return self._timeline.time_s

    @property
    def times_made_up(self) -> bool:
        """Whether any of `frame_time_s` was computed because the container's was missing or went backwards."""
        self._after_the_end()
        return self._times_are_guesses or self._timeline.made_up

    @cached_property
    def damage(self) -> Damage | None:
        """None for a video that decoded without an error and to its end."""
        self._after_the_end()
        time_s = self._timeline.time_s
        gaps, messages = gaps_after(time_s, self.info.fps), list(self._messages)
        end_s = float(time_s[-1]) + max(float(1 / self.info.fps), self._last_duration_s)
        lost_s = (self.info.duration_s or 0.0) - end_s
        lost_end = lost_s > max(LOST_END_S, LOST_END_FRAMES / float(self.info.fps))
        if lost_end:
            gaps.append({
                "after_frame": len(time_s) - 1, "start_s": round(end_s, 6), "end_s": round(end_s + lost_s, 6),
                "missing_frames": int(round(lost_s * float(self.info.fps))),
            })
            messages.append(f"the stream ends at {end_s:.3f} s, its header says {end_s + lost_s:.3f} s")
        num_errors = self._num_errors + self._num_corrupt
        if not (num_errors or lost_end):
            return None
        return Damage(num_errors=num_errors, gaps=tuple(gaps), messages=tuple(messages))

    @cached_property
    def source(self) -> Source:
        """Reads the file again to hash it. Raises VideoError where it changed since it was opened."""
        return self.read_source()

    def read_source(self, on_progress: Callable[[], object] = lambda: None) -> Source:
        """`source`, with a call to `on_progress` for every MiB."""
        source = read_source(self.path, self._files, on_progress)
        if (source.size, source.mtime_ns) != self._state_at_start:
            raise VideoError(f"{self.path}: the file changed while it was decoded; wait until it is complete")
        return source

    @property
    def sha256(self) -> str:
        return self.source.sha256
