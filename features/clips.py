"""Which sampled frames the encoder sees together, and from which clip each step is stored.

Sampled frames are brought to a multiple of `tubelet` by repeating the last; `tubelet` of them make a step. Clips start every
`stride` steps, and the last one is shifted back to end at the last step. With tubelet 2, clips of 4 steps and 10 steps:

    steps     0  1  2  3  4  5  6  7  8  9
    clip 0    [  0  0  0  0 ]
    clip 1                [  1  1  1  1 ]
    clip 2                       [  2  2  2  2 ]      shifted back from 8
    stored    0  0  0  0  1  1  1  1  2  2            central: steps 6 and 7 lie two from either middle, the earlier has them

`plan_clips` says it for a known number of sampled frames; `ClipAssembler` makes the same clips from a stream whose end is not
known, holding the frames of at most one clip and one stride. Shapes: T frames of a clip, H x W pixels, n steps, u tubelet.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Iterator

import numpy as np

from features.schema import Encoding, Keep
from vjepa_loc.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ClipRule:
    """How clips are cut: `clip_frames` and `overlap` in sampled frames, both multiples of `tubelet`.

    A `fixed` encoder takes no clip shorter than `clip_frames`: a shorter video is padded with its last frame.
    """

    clip_frames: int
    tubelet: int
    overlap: int = 0
    keep: Keep = "central"
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.tubelet < 1 or self.clip_frames < self.tubelet or self.clip_frames % self.tubelet:
            raise ConfigError(f"clip_frames must be a positive multiple of tubelet {self.tubelet}, got {self.clip_frames}")
        if not 0 <= self.overlap < self.clip_frames or self.overlap % self.tubelet:
            raise ConfigError(
                f"overlap must be a multiple of tubelet {self.tubelet} below clip_frames {self.clip_frames}, got {self.overlap}"
            )

    @classmethod
    def of(cls, encoding: Encoding) -> "ClipRule":
        """The rule that an encoding states."""
        return cls(encoding.clip_frames, encoding.tubelet, encoding.overlap, encoding.keep, encoding.fixed_clip)

    @property
    def clip_steps(self) -> int:
        return self.clip_frames // self.tubelet

    @property
    def stride_steps(self) -> int:
        return (self.clip_frames - self.overlap) // self.tubelet

    @property
    def frames_held(self) -> int:
        """The most sampled frames that `ClipAssembler` holds: a clip waits for the one that starts a stride later."""
        return (self.clip_steps + self.stride_steps) * self.tubelet

    def boundary(self, start: int, next_start: int) -> int:
        """The first step that is stored from the clip at `next_start` and not from the one at `start` before it."""
        if self.keep == "earliest":
            return start + self.clip_steps
        # Middles lie at start + (clip_steps - 1) / 2; a step halfway between two of them goes to the earlier.
        return (start + next_start + self.clip_steps - 1) // 2 + 1


def overlap_frames(fraction: float, clip_frames: int, tubelet: int) -> int:
    """The overlap nearest to `fraction` (0 to below 1) of a clip that is whole steps and leaves a stride of one or more."""
    clip_steps = clip_frames // tubelet
    return min(round(fraction * clip_steps), clip_steps - 1) * tubelet


@dataclasses.dataclass(frozen=True)
class PlannedClip:
    """A clip over steps `start` to `stop` (exclusive), of which `keep_start` to `keep_stop` are stored from it."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def plan_clips(num_sampled: int, rule: ClipRule) -> list[PlannedClip]:
    """The clips of a video of `num_sampled` sampled frames, in order; together they keep every step exactly once."""
    num_steps = math.ceil(num_sampled / rule.tubelet)
    if num_steps <= rule.clip_steps:
        return [PlannedClip(0, num_steps, 0, num_steps)] if num_steps else []
    starts = list(range(0, num_steps - rule.clip_steps + 1, rule.stride_steps))
    if starts[-1] + rule.clip_steps < num_steps:
        starts.append(num_steps - rule.clip_steps)
    boundaries = [0, *(rule.boundary(*pair) for pair in zip(starts, starts[1:], strict=False)), num_steps]
    return [
        PlannedClip(start, start + rule.clip_steps, boundaries[number], boundaries[number + 1])
        for number, start in enumerate(starts)
    ]


def expected_steps(encoding: Encoding, num_frames: int | None, fps: float | None) -> int | None:
    """About how many steps a video of that length and rate will have; None where that cannot be said before it is decoded."""
    if num_frames is None or (encoding.sample_fps is not None and not fps):
        return None
    sampled = num_frames / encoding.frame_step
    if encoding.sample_fps is not None:
        sampled *= min(1.0, encoding.sample_fps / fps)
    return math.ceil(sampled / encoding.tubelet)


def expected_clips(encoding: Encoding, num_frames: int | None, fps: float | None) -> int | None:
    """About how many clips a video of that length and rate will have; None where that cannot be said before it is decoded."""
    num_steps = expected_steps(encoding, num_frames, fps)
    return None if num_steps is None else len(plan_clips(num_steps * encoding.tubelet, ClipRule.of(encoding)))


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip ready to be encoded.

    `frames` are T uint8 pictures (H, W, 3), as they were pushed; all of them go to the encoder, and of the steps that come back
    `keep` are stored (a slice within the clip). `frame_numbers_nu` holds the frames those steps were made from; the encoder saw
    `first_seen` to `last_seen`.
    """

    frames: tuple[np.ndarray, ...]
    start_step: int
    keep: slice
    frame_numbers_nu: np.ndarray
    first_seen: int
    last_seen: int

    @property
    def shape_THW3(self) -> tuple[int, int, int, int]:
        return (len(self.frames), *self.frames[0].shape)

    @property
    def frames_THW3(self) -> np.ndarray:
        """A copy of the frames in one array."""
        return np.stack(self.frames)

    @property
    def num_kept(self) -> int:
        return self.keep.stop - self.keep.start


class ClipAssembler:
    """Makes the clips of one video from its sampled frames as they come: `push` them in order, then `finish` once.

    A clip is given out as soon as it is known where the next one starts, because that decides which steps are its own. Frames
    are not copied: they must stay as they are while clips are made of them (`num_released`).
    """

    def __init__(self, rule: ClipRule):
        self._rule = rule
        self._frames: deque[tuple[int, np.ndarray]] = deque()  # of the steps from _start on
        self._start = 0  # step at which the next clip to be given out starts
        self._keep_start = 0
        self._num_sampled = 0

    @property
    def num_sampled(self) -> int:
        """Sampled frames pushed so far."""
        return self._num_sampled

    @property
    def num_released(self) -> int:
        """Of the frames pushed so far, the first that no later clip needs."""
        return self._num_sampled - len(self._frames)

    def push(self, frame_numbers_n: np.ndarray, frames_nHW3: np.ndarray) -> Iterator[Clip]:
        """Take the next sampled frames (any number of them) and yield the clips that they complete."""
        for number, frame_HW3 in zip(frame_numbers_n, frames_nHW3, strict=True):
            self._frames.append((int(number), frame_HW3))
            self._num_sampled += 1
            next_start = self._start + self._rule.stride_steps
            if self._num_sampled == (next_start + self._rule.clip_steps) * self._rule.tubelet:
                yield self._give_out(next_start)

    def finish(self) -> Iterator[Clip]:
        """Yield the clips that were waiting for the end of the video."""
        if not self._num_sampled:
            return
        rule = self._rule
        num_steps = math.ceil(self._num_sampled / rule.tubelet)
        for _ in range(num_steps * rule.tubelet - self._num_sampled):
            self._frames.append(self._frames[-1])
        if self._start + rule.clip_steps < num_steps:
            yield self._give_out(num_steps - rule.clip_steps)
        yield self._clip(keep_stop=num_steps)

    def _give_out(self, next_start: int) -> Clip:
        boundary = self._rule.boundary(self._start, next_start)
        clip = self._clip(keep_stop=boundary)
        for _ in range((next_start - self._start) * self._rule.tubelet):
            self._frames.popleft()
        self._start, self._keep_start = next_start, boundary
        return clip

    def _clip(self, keep_stop: int) -> Clip:
        rule = self._rule
        shown = [self._frames[i] for i in range(min(rule.clip_frames, len(self._frames)))]
        keep = slice(self._keep_start - self._start, keep_stop - self._start)
        numbers = np.array([number for number, _ in shown], dtype=np.int32)
        frames = [frame for _, frame in shown]
        if rule.fixed:
            frames += [frames[-1]] * (rule.clip_frames - len(frames))
        return Clip(
            frames=tuple(frames),
            start_step=self._start,
            keep=keep,
            frame_numbers_nu=numbers.reshape(-1, rule.tubelet)[keep],
            first_seen=int(numbers[0]),
            last_seen=int(numbers[-1]),
        )
