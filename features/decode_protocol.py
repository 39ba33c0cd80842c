"""What a decoding process is asked and what it answers, over one connection; the pixels lie in a ring that both share.

    parent                          child
                                    Ready, once, when its libraries are loaded
    Request              ->
                         <-         Opened
                         <-         Frames, any number of times; Alive in between, at most every half second
    Release              ->         any number of times: slots of the ring that may be written again
                         <-         DecodeSummary or Failure, once per Request

The k-th sampled frame of a video lies in slot k modulo the ring's size. A child that is ahead waits for a slot.
Shape legend: n sampled frames, h x w encoder input pixels.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from features.decoders.reader import VideoInfo
from features.sampling import FrameSampler
from features.schema import Damage, Encoding, Source
from vjepa_loc.errors import ConfigError, VjepaLocError
from vjepa_loc.spacegrid import SpaceGrid


@dataclass(frozen=True)
class Prepare:
    """What a decoding process does to frames: sample, resize, and send in batches of `batch_frames`."""

    fit: str
    input_height: int
    input_width: int
    patch_px: int
    frame_step: int = 1
    sample_fps: float | None = None
    batch_frames: int = 16

    def __post_init__(self) -> None:
        FrameSampler(self.frame_step, self.sample_fps)
        if self.batch_frames < 1:
            raise ConfigError(f"batch_frames: expected 1 or more, got {self.batch_frames}")

    @classmethod
    def of(cls, encoding: Encoding) -> "Prepare":
        """What the clips of an encoding need."""
        return cls(
            fit=encoding.fit, input_height=encoding.input_hw[0], input_width=encoding.input_hw[1], patch_px=encoding.patch_px,
            frame_step=encoding.frame_step, sample_fps=encoding.sample_fps,
        )

    @property
    def frame_bytes(self) -> int:
        """The most that one resized frame takes."""
        return self.input_height * self.input_width * 3

    def space_grid(self, info: VideoInfo) -> SpaceGrid:
        """Where a video's displayed frames lie in the encoder's input."""
        return SpaceGrid.build(self.fit, info.width, info.height, self.input_height, self.input_width, self.patch_px)


@dataclass(frozen=True)
class Request:
    """One video to decode into a ring of `ring_frames` slots, a multiple of the batch."""

    path: str
    prepare: Prepare
    decoder: str
    nominal_fps: float | Fraction | None
    ring_frames: int


@dataclass(frozen=True)
class Release:
    """Of the video's sampled frames the first `num_frames` are no longer needed."""

    num_frames: int


@dataclass(frozen=True)
class Ready:
    """The child can take requests."""


@dataclass(frozen=True)
class Alive:
    """The child makes progress: it decodes frames that are not sampled, or hashes the file."""


@dataclass(frozen=True)
class Opened:
    """The first frame was decoded, by these versions of libraries."""

    info: VideoInfo
    space_grid: SpaceGrid
    versions: dict[str, str]


@dataclass(frozen=True)
class Frames:
    """The next sampled frames of the video are in the ring."""

    frame_numbers_n: np.ndarray


@dataclass(frozen=True)
class Failure:
    """Why the video cannot be used."""

    error: VjepaLocError


@dataclass(frozen=True, eq=False)
class FrameBatch:
    """Consecutive sampled frames of one video in the encoder's input size; `info` is as known when the video was opened."""

    frame_numbers_n: np.ndarray
    frames_nhw3: torch.Tensor
    info: VideoInfo
    space_grid: SpaceGrid
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class DecodeSummary:
    """What is known of a video after its last frame.

    `frame_time_s` is float64 (num_frames,); `damage` is None for a whole video; `busy_s` are the seconds that decoding,
    resizing and hashing took, `blocked_s` those of waiting for a consumer.
    """

    info: VideoInfo
    num_frames: int
    num_sampled: int
    frame_time_s: np.ndarray
    times_made_up: bool
    damage: Damage | None
    source: Source
    space_grid: SpaceGrid
    decoder: str
    versions: dict[str, str]
    busy_s: float
    blocked_s: float

    @property
    def sha256(self) -> str:
        return self.source.sha256
