"""How far an extraction is: what the store holds of a dataset, what its workers said last, what failed and why.

Reads the listing of commits, the ledger and `workers/`; opens no video, writes nothing that matters, and needs no worker.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.claims import LEASE_S
from features.clips import expected_clips
from features.durable import free_bytes
from features.schema import Encoding
from features.store import Store, open_store
from features.worker_status_record import InHand, WorkerRecord, read_workers
from vjepa_loc.dataset import Dataset, Video

# Reasons that say nothing against a video: it was not its turn, or the run was ended.
_NOT_A_FAILURE = ("interrupted",)
ALIVE = ("running", "stopping", "silent")


@dataclass(frozen=True)
class ShownWorker:
    """A worker and what it seems to be doing: `seems` is running, stopping, silent, gone or ended."""

    record: WorkerRecord
    seems: str
    silent_s: float

    @property
    def alive(self) -> bool:
        return self.seems in ALIVE

    def to_dict(self) -> dict[str, Any]:
        return {"seems": self.seems, "silent_s": round(self.silent_s, 1), **asdict(self.record)}


@dataclass(frozen=True)
class StoreStatus:
    """What `cli.py status` says. Counts of videos are of the dataset, or, without one, of everything the store ever heard of.

    `failed` maps ids to the reason of the last attempt; `in_hand` are the videos of workers that are alive, `waiting` the rest.
    `clips_left` and `seconds_left` are about right, None where they cannot be said. `free_bytes` is that of the disk that the store
    or, in object storage, an unfinished video lies on; `None` where it cannot be asked.
    """

    store: str
    dataset: str | None
    num_videos: int
    num_done: int
    num_damaged: int
    failed: dict[str, str]
    in_hand: tuple[InHand, ...]
    num_waiting: int | None
    stored_videos: int
    stored_bytes: int
    free_bytes: int | None
    clips_per_s: float
    clips_left: int | None
    seconds_left: float | None
    workers: tuple[ShownWorker, ...]

    def to_dict(self) -> dict[str, Any]:
        """What `status --json` prints."""
        return {
            "store": self.store, "dataset": self.dataset, "videos": self.num_videos, "done": self.num_done,
            "damaged": self.num_damaged, "in_hand": [asdict(video) for video in self.in_hand], "waiting": self.num_waiting, "failed": self.failed,
            "clips_per_s": self.clips_per_s, "clips_left": self.clips_left, "seconds_left": self.seconds_left,
            "stored_videos": self.stored_videos, "stored_bytes": self.stored_bytes, "free_bytes": self.free_bytes,
            "workers": [worker.to_dict() for worker in self.workers],
        }


def store_status(path: Path | str, dataset: Dataset | None = None) -> StoreStatus:
    """The status of the store at `path`. Raises `StoreError` where there is none, or where it cannot be read."""
    store, now = open_store(path), time.time()
    # Read before the commits: a video that is committed in between is done, and not in nobody's hand.
    workers = tuple(
        ShownWorker(record, record.seems(now), record.silent_s(now)) for record in read_workers(store.place)
        if record.silent_s(now) < LEASE_S
    )
    last = _last_attempts(store)
    summaries = store.summaries()
    videos = dict(dataset.videos) if dataset is not None else {}
    ids = set(videos) if dataset is not None else {*summaries, *last}
    done = ids & set(summaries)
    in_hand = {
        video.id: video for worker in workers if worker.alive for video in worker.record.in_hand
        if video.id not in summaries and (dataset is None or video.id in ids)
    }
    ids |= set(in_hand)
    failed = {
        video_id: reason for video_id, (outcome, reason) in sorted(last.items())
        if video_id in ids and video_id not in summaries and video_id not in in_hand
        and outcome == "failed" and reason not in _NOT_A_FAILURE
    }
    waiting = len(ids) - len(done) - len(in_hand) - len(failed) if dataset is not None else None
    clips_per_s = sum(worker.record.recent_clips_per_s for worker in workers if worker.seems in ("running", "stopping"))
    if dataset is not None:
        clips_left = _clips_left(store.encoding, videos, summaries, in_hand, failed)
    else:
        clips_left = _clips_left_of_workers(workers)
    return StoreStatus(
        store=str(store.path), dataset=None if dataset is None else str(dataset.path), num_videos=len(ids), num_done=len(done),
        num_damaged=sum(summaries[video_id].damaged for video_id in done), failed=failed, in_hand=tuple(in_hand.values()),
        num_waiting=waiting, stored_videos=len(summaries), stored_bytes=sum(summary.bytes for summary in summaries.values()),
        free_bytes=_free(store), clips_per_s=round(clips_per_s, 3), clips_left=clips_left,
        seconds_left=_seconds(clips_left, clips_per_s),
        workers=workers,
    )


def _last_attempts(store: Store) -> dict[str, tuple[str, str]]:
    """Video id -> outcome and reason of the last attempt that was more than leaving it to another process."""
    last = {}
    for entry in store.ledger.entries():
        if isinstance(video_id := entry.get("id"), str) and entry.get("outcome") != "skipped":
            last[video_id] = str(entry.get("outcome")), str(entry.get("reason", ""))
    return last


def _clips_left(
    encoding: Encoding, videos: Mapping[str, Video], stored: Mapping[str, Any], in_hand: Mapping[str, InHand],
    failed: Mapping[str, str],
) -> int | None:
    """Of the videos that are neither stored nor failed; one of unknown length counts as the mean of the others."""
    known, num_unknown, done = [], 0, 0
    lengths = [
        expected_clips(encoding, stored[video_id].num_frames, video.fps) for video_id, video in videos.items() if video_id in stored
    ]
    for video_id, video in videos.items():
        if video_id in stored or video_id in failed:
            continue
        number = expected_clips(encoding, video.num_frames, video.fps)
        if number is None:
            num_unknown += 1
        else:
            known.append(number)
        if video_id in in_hand:
            done += min(in_hand[video_id].clips, number) if number is not None else 0
    samples = known + [length for length in lengths if length is not None]
    if num_unknown and not samples:
        return None
    return max(0, round(sum(known) - done + (num_unknown * sum(samples) / len(samples) if num_unknown else 0)))


def _clips_left_of_workers(workers: Sequence[ShownWorker]) -> int | None:
    """As the workers see it: those that work on one list each see all of it, and who is furthest knows best."""
    lists: dict[str, int] = {}
    for worker in workers:
        if worker.alive:
            digest, left = worker.record.list_digest, worker.record.clips_left
            lists[digest] = min(left, lists.get(digest, left))
    return sum(lists.values()) if lists else None


def _seconds(clips_left: int | None, clips_per_s: float) -> float | None:
    if clips_left == 0:
        return 0.0
    return round(clips_left / clips_per_s, 1) if clips_left is not None and clips_per_s else None


def _free(store: Store) -> int | None:
    try:
        return free_bytes(store.path if isinstance(store.path, Path) else store.place.staging)
    except OSError:
        return None
