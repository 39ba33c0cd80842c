"""A worker's file in a store, `workers/<writer>.json`, as a value.

`features.worker_status` writes it, `features.status` reads it.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal, Self

from features.claims import Owner
from features.places import Place

FOLDER = "workers"
# So many intervals without a word: a write that is late, a machine that slept, and then it is silent.
_SILENT_INTERVALS = 6

State = Literal["running", "stopping", "ended"]


@dataclass(frozen=True)
class InHand:
    """A video that is being extracted: clips so far, of about how many (None where that is not known)."""

    id: str
    clips: int
    expected: int | None


@dataclass(frozen=True)
class WorkerRecord:
    """One worker's file. Times in seconds since 1970 by its own clock; rates in clips per second.

    `clips_left` are those of its list that it has not seen yet; `list_size` videos stand in it, and `list_digest` is the same for workers
    that share one. `stages` are shares of the time in which a stage was busy, `how` is why it stops or how it ended.
    """

    owner: Owner
    device: str
    started: float
    updated: float
    every_s: float
    state: State
    how: str
    done: int
    skipped: int
    failed: int
    clips: int
    recent_clips_per_s: float
    mean_clips_per_s: float
    clips_left: int
    list_size: int
    list_digest: str
    in_hand: tuple[InHand, ...] = ()
    stages: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return (json.dumps({"version": 1, **asdict(self)}, ensure_ascii=False) + "\n").encode(errors="backslashreplace")

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Raises ValueError, KeyError, TypeError or AttributeError for anything else than what `to_json` wrote."""
        values = json.loads(raw)
        if values.pop("version") != 1:
            raise ValueError("unknown version")
        values["owner"] = Owner(**values["owner"])
        values["in_hand"] = tuple(InHand(**video) for video in values["in_hand"])
        return cls(**values)

    def silent_s(self, now: float) -> float:
        """Seconds since it last wrote; clocks of other machines may be a little ahead."""
        return max(0.0, now - self.updated)

    def seems(self, now: float) -> str:
        """`running`, `stopping`, `ended`; or `gone` where its process is known to be, `silent` where it should have written by now."""
        if self.state == "ended":
            return "ended"
        if self.owner.is_gone():
            return "gone"
        return "silent" if self.silent_s(now) > _SILENT_INTERVALS * self.every_s else self.state


def read_workers(place: Place) -> list[WorkerRecord]:
    """What the workers of a store last said, in the order of their start; files that cannot be read are left out."""
    names = [entry.name for entry in place.entries(FOLDER) if entry.name.endswith(".json")]
    found = []
    for raw in place.read_many(names):
        try:
            if raw is not None:
                found.append(WorkerRecord.from_json(raw))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(found, key=lambda record: record.started)
