"""What the process that checks a video is asked, and what it answers.

    Look       -> Looked       decode all of it once, in order
    AskDecord  -> Testimony    decode all of it with decord, and compare
    Remux      -> Remuxed      copy its packets into a new container

`Alive` comes in between, at most every half second; `Failure` instead of an answer where the video cannot be used.
Everything here is light: neither side loads torch. Shape legend: n frames.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from features.decoders.reader import VideoInfo
from features.schema import Damage, Source
from vjepa_loc.errors import VjepaLocError

DIGEST_BYTES = 32


@dataclass(frozen=True)
class Ready:
    """The child can take requests."""


@dataclass(frozen=True)
class Alive:
    """The child makes progress."""


@dataclass(frozen=True)
class Failure:
    """Why the video cannot be used."""

    error: VjepaLocError


@dataclass(frozen=True)
class Look:
    """Decode `path`; with `digests`, take the sha256 of every frame's RGB24 bytes, as displayed."""

    path: str
    nominal_fps: float | Fraction | None = None
    digests: bool = False


@dataclass(frozen=True, eq=False)
class Looked:
    """A video that gave at least one frame.

    `codec` is the format's name, where `info` has the decoder's; `frame_time_s` is float64 (n,); `digests` holds 32 bytes per
    frame, or nothing; `oddities` are properties of the container that other tools stumble over although every frame was decoded.
    """

    info: VideoInfo
    codec: str
    num_frames: int
    frame_time_s: np.ndarray
    times_made_up: bool
    damage: Damage | None
    source: Source
    versions: dict[str, str]
    oddities: tuple[str, ...]
    digests: bytes

    @property
    def duration_s(self) -> float:
        """From the first frame's begin to the last one's end, were it shown for one period."""
        return float(self.frame_time_s[-1]) + float(1 / self.info.fps)

    @property
    def num_errors(self) -> int:
        return 0 if self.damage is None else self.damage.num_errors

    def digest(self, frame: int) -> bytes:
        return self.digests[frame * DIGEST_BYTES : (frame + 1) * DIGEST_BYTES]


@dataclass(frozen=True)
class AskDecord:
    """Decode `path` with decord and compare every pixel with frames of these `digests` (32 bytes each)."""

    path: str
    digests: bytes
    nominal_fps: float | Fraction | None = None


@dataclass(frozen=True)
class Testimony:
    """What decord says. `same`, `differs`, or `no answer`.

    `known` is why decord is not exact on this kind of file; a difference then says nothing against the file. `text` is a sentence
    about the rest: what decord raised, or what differs.
    """

    verdict: Literal["same", "differs", "no answer"]
    text: str
    known: str | None = None
    num_frames: int | None = None
    num_differing: int | None = None
    first_differing: int | None = None
    max_difference: int | None = None

    def __str__(self) -> str:
        known = f" (known: decord is not exact on {self.known})" if self.known else ""
        return f"{self.verdict}{': ' if self.text else ''}{self.text}{known}"


@dataclass(frozen=True, eq=False)
class Remux:
    """Copy the packets of `source` into `target`, a file that is there, with FFmpeg's `muxer`.

    `frame_time_s`, float64 (n,), are the times that its frames get instead of the container's, in presentation order.
    """

    source: str
    target: str
    muxer: str
    frame_time_s: np.ndarray | None = None
    fps: Fraction | None = None


@dataclass(frozen=True)
class Remuxed:
    """`left_out`: streams that the new container cannot hold."""

    left_out: tuple[str, ...]
