"""What an extraction says while it runs, what became of each video, and where the time went."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

IN_OTHER_HANDS = "in the hands of another process"
"""The reason of a video that was skipped because another process extracts it."""

Status = Literal["done", "skipped", "failed", "dropped"]


@dataclass
class StageTimes:
    """Seconds of the stages, each summed over those who work in it, which are several and run beside each other.

    Decoding processes were busy for `decode_s` and waited for a place to put frames for `decode_blocked_s`; encoders were busy for
    `encode_s` and waited for clips for `encode_wait_s`, for writers for `encode_blocked_s`; writers were busy for `write_s` (quantising
    and fsync included) and waited for tokens for `write_wait_s`. `wall_s` is the whole run.
    """

    decode_s: float = 0.0
    decode_blocked_s: float = 0.0
    encode_s: float = 0.0
    encode_wait_s: float = 0.0
    encode_blocked_s: float = 0.0
    write_s: float = 0.0
    write_wait_s: float = 0.0
    wall_s: float = 0.0

    def __iadd__(self, other: "StageTimes") -> "StageTimes":
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))
        return self


@dataclass
class Extracted:
    """What was stored of one video. `stored` is False where another writer's commit was first, whose video counts."""

    num_frames: int = 0
    num_steps: int = 0
    num_clips: int = 0
    damaged: bool = False
    stored: bool = False
    times: StageTimes = field(default_factory=StageTimes)


@dataclass(frozen=True)
class Note:
    """A line that a person should see before the work begins."""

    text: str


@dataclass(frozen=True)
class VideoStarted:
    """A video is begun."""

    video_id: str


@dataclass(frozen=True)
class ClipsEncoded:
    """`num_clips` more clips of a video have been encoded."""

    video_id: str
    num_clips: int


@dataclass(frozen=True)
class VideoRetried:
    """An attempt at a video failed for a reason that may pass; it is begun again in `wait_s` seconds or later."""

    video_id: str
    reason: str
    attempt: int
    wait_s: float


@dataclass(frozen=True)
class Stopping:
    """The extraction was asked to stop: these videos in hand are finished, those are dropped, and no other is begun."""

    finishing: tuple[str, ...]
    dropping: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a video. `extracted` is there where its file was read to the end.

    `dropped`: the extraction was stopped before the video's end; nothing of it is stored.
    """

    video_id: str
    status: Status
    reason: str = ""
    extracted: Extracted | None = None
    traceback: str = ""

    def details(self) -> dict[str, Any]:
        """What the ledger keeps besides status and reason."""
        details: dict[str, Any] = {"traceback": self.traceback} if self.traceback else {}
        if self.extracted is not None:
            found = self.extracted
            details |= {"frames": found.num_frames, "steps": found.num_steps, "clips": found.num_clips, "damaged": found.damaged}
            details |= {name: round(value, 3) for name, value in vars(found.times).items() if value}
        return details


Progress = Note | VideoStarted | ClipsEncoded | VideoRetried | Stopping | Outcome
