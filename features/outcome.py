"""What an extraction says while it runs, and what became of each video."""

from dataclasses import dataclass
from typing import Any, Literal

from features.extract_video import Extracted

Status = Literal["done", "skipped", "failed"]


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
class Outcome:
    """What became of a video. `extracted` is there where its file was read to the end."""

    video_id: str
    status: Status
    reason: str = ""
    extracted: Extracted | None = None

    def details(self) -> dict[str, Any]:
        """What the ledger keeps besides status and reason."""
        if self.extracted is None:
            return {}
        times = {name: round(value, 3) for name, value in vars(self.extracted.times).items()}
        return {"frames": self.extracted.num_frames, "steps": self.extracted.num_steps, "damaged": self.extracted.damaged, **times}


Progress = VideoStarted | ClipsEncoded | Outcome
